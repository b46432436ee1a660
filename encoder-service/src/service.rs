//! Starts the encoder service: one encoder per distinct encoder digest of the given cascades.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_artifacts::{ArtifactStore, CascadeBundle};
use darkroom_core::{
    error::UserError,
    id::{StageName, WorkerId},
};
use darkroom_proto::v1::encoder_server::EncoderServer;
use darkroom_queue::{
    TaskQueue,
    signing::Signer,
    stage_loop::{
        self, Busy, Serve,
        noop::{NoopModel, NoopStage},
    },
    task::PoolId,
};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;

use crate::{
    api::EncoderApi,
    encoder::Encoder,
    fake_encoder::FakeEncoder,
    machine::Machine,
    stage::{EncodeModel, EncodeStage},
    thread::Encoders,
};

/// Most texts in one batch.
const BATCH: usize = 32;

/// How the service runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its host's name.
    pub host: String,
    /// Signs its results; its worker is this one. Without keys it is a new worker that signs
    /// nothing.
    pub signer: Signer,
    /// What to run on.
    pub machine: Machine,
    /// Most texts in one batch; absent means 32.
    pub batch: Option<usize>,
    /// Times; absent ones have their defaults.
    pub times: Times,
}

/// Times of the service; absent ones have their defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Time between two heartbeats; must be much less than the farm's lease.
    pub heartbeat: Option<Duration>,
    /// Time a drain may take before running work is stopped.
    pub grace: Option<Duration>,
    /// How long storage faults are retried before a task is interrupted.
    pub storage_patience: Option<Duration>,
    /// How long an idle encoder waits for more texts when a batch is not full.
    pub linger: Option<Duration>,
    /// Time between two announcements of the service.
    pub announce_every: Option<Duration>,
}

/// A running encoder service.
#[derive(Debug)]
pub struct Handle {
    stage: stage_loop::Handle,
    api: EncoderApi,
}

impl Handle {
    /// gRPC `Encoder`, to serve beside other services.
    #[must_use]
    pub fn encoder_service(&self) -> EncoderServer<EncoderApi> {
        EncoderServer::new(self.api.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
    }

    /// The same as separate routes.
    #[must_use]
    pub fn routes(&self) -> tonic::service::Routes {
        tonic::service::Routes::new(self.encoder_service())
    }

    /// Its id among the workers.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        self.stage.worker()
    }

    /// How much the encoder has worked for the farm.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.stage.busy()
    }

    /// Starts to drain and returns at once. [`join`](Self::join) waits for the end.
    pub fn shutdown(&self) {
        self.stage.shutdown();
    }

    /// Resolves when the service cannot go on. Otherwise it never resolves.
    pub fn broken(&self) -> impl Future<Output = UserError> + Send + use<> {
        self.stage.broken()
    }

    /// The loop that works for the farm, so that the caller can end it alone. The gRPC routes go on
    /// while they are served.
    #[must_use]
    pub fn into_loop(self) -> stage_loop::Handle {
        self.stage
    }

    /// Waits for the end of the drain.
    ///
    /// # Errors
    /// If the service broke.
    pub async fn join(self) -> Result<(), UserError> {
        self.stage.join().await
    }
}

/// Starts the service with T5.
///
/// # Errors
/// What prevents a start: a model that cannot be loaded, a device that does not exist.
#[cfg(feature = "torch")]
pub async fn start(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let machine = options.machine.clone();
    let make =
        move |cascade: &CascadeBundle| crate::torch_encoder::TorchEncoder::load(cascade, &machine);
    start_with(options, queue, artifacts, cascades, make, shutdown).await
}

/// Starts the service with the fake encoder.
///
/// # Errors
/// None at present.
pub async fn start_fake(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let make = |cascade: &CascadeBundle| {
        Ok(FakeEncoder::new(cascade.cascade().spec.encoder.max_length as usize))
    };
    start_with(options, queue, artifacts, cascades, make, shutdown).await
}

/// Starts a service that reports every text as encoded and stores nothing: for benchmarks of the
/// farm itself. Its gRPC answers come from the fake encoder.
///
/// # Errors
/// None at present.
pub async fn start_noop(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let make = |cascade: &CascadeBundle| {
        Ok(FakeEncoder::new(cascade.cascade().spec.encoder.max_length as usize))
    };
    let service = Service::prepare(&options, cascades, make).await?;
    let stage = Arc::new(NoopStage);
    let stage =
        stage_loop::start(service.options, queue, stage, || Ok(NoopModel::default()), shutdown)
            .await?;
    Ok(Handle { stage, api: service.api })
}

/// Starts the service with any encoder, which is made on the thread that will own it.
///
/// # Errors
/// What `make_encoder` returns.
pub async fn start_with<E: Encoder>(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    make_encoder: impl Fn(&CascadeBundle) -> Result<E, UserError> + Send + 'static,
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let service = Service::prepare(&options, cascades, make_encoder).await?;
    let model = EncodeModel::new(service.encoders, service.positions);
    let stage = Arc::new(EncodeStage::new(artifacts, service.tokens));
    let stage =
        stage_loop::start(service.options, queue, stage, move || Ok(model), shutdown).await?;
    Ok(Handle { stage, api: service.api })
}

/// The parts of a service, independent of its stage.
struct Service {
    encoders: Encoders,
    positions: HashMap<PoolId, usize>,
    /// Tokens of a text, by pool.
    tokens: HashMap<PoolId, usize>,
    options: stage_loop::Options,
    api: EncoderApi,
}

impl Service {
    /// Makes one encoder per distinct digest, on the thread that owns them.
    async fn prepare<E: Encoder>(
        options: &Options,
        cascades: &[CascadeBundle],
        make_encoder: impl Fn(&CascadeBundle) -> Result<E, UserError> + Send + 'static,
    ) -> Result<Self, UserError> {
        let mut distinct: Vec<CascadeBundle> = Vec::new();
        let mut digests = Vec::new();
        for bundle in cascades {
            let digest = bundle.cascade().encoder_digest();
            if !digests.contains(&digest) {
                digests.push(digest);
                distinct.push(bundle.clone());
            }
        }
        let pools: Vec<PoolId> = digests
            .iter()
            .map(|digest| PoolId { stage: StageName::encode(), digest: *digest })
            .collect();
        let preparations =
            distinct.iter().map(|bundle| bundle.cascade().spec.encoder.text_preparation).collect();
        let lengths = distinct
            .iter()
            .map(|bundle| bundle.cascade().spec.encoder.max_length as usize)
            .collect::<Vec<_>>();
        let tokens = pools.iter().cloned().zip(lengths).collect();
        let make = move || distinct.iter().map(make_encoder).collect();
        let encoders = Encoders::start(digests, make).await?;
        let batch_cap = options.batch.unwrap_or(BATCH);
        let serve = pools.iter().map(|pool| Serve { pool: pool.clone(), batch_cap }).collect();
        let mut loop_options =
            stage_loop::Options::signing(options.signer.clone(), &options.host, serve);
        options.times.apply(&mut loop_options);
        let positions = pools.into_iter().enumerate().map(|(i, pool)| (pool, i)).collect();
        let api = EncoderApi::new(encoders.clone(), preparations);
        Ok(Self { encoders, positions, tokens, options: loop_options, api })
    }
}

impl Times {
    fn apply(self, options: &mut stage_loop::Options) {
        let set = |time: &mut Duration, wanted: Option<Duration>| *time = wanted.unwrap_or(*time);
        set(&mut options.heartbeat, self.heartbeat);
        set(&mut options.grace, self.grace);
        set(&mut options.storage_patience, self.storage_patience);
        set(&mut options.linger, self.linger);
        set(&mut options.announce_every, self.announce_every);
    }
}
