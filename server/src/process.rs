//! A coordinator as a process: connects to the farm's database, queue and object storage, and
//! serves gRPC and HTTP until a signal.

use std::{path::PathBuf, sync::Arc};

use darkroom_artifacts::{ArtifactStore, CascadeBundle, cascade_store, open};
use darkroom_coordinator::{
    Coordinator, Options, note_own, server_options,
    store::{self, Store, roles::Agreed},
};
use darkroom_core::{
    cascade::Cascade,
    error::{Code, UserError},
    sharing::Sharing,
};
use darkroom_farm_api::{grpc, members};
use darkroom_queue::{
    TaskQueue,
    redis::{self, RedisQueue},
};
use darkroom_runtime::server;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    args::CoordinatorArgs,
    door::Door,
    engine::Engine,
    record::{Connections, Record, not_started, open_store},
    troubles::{Troubles, tell_health, watch_storage, watch_store},
};

/// Connects, recovers what an earlier process left, and serves until `stop`.
///
/// # Errors
/// One sentence that says why it cannot start.
pub(crate) async fn run(args: CoordinatorArgs, stop: CancellationToken) -> Result<(), UserError> {
    let mut options = args.options()?;
    args.door.check()?;
    let privacy = args.tls.open()?;
    let listener = server::listen(&args.listen, &privacy).await.map_err(|error| error.to_user())?;
    let bundles = load(&args).await?;
    let artifacts = ArtifactStore::open(args.artifacts.expose(), &open::Options::from_env())?;
    artifacts.check().await?;
    let engine = Engine::start()?;
    let (database, connections) =
        (args.database.clone(), Connections::of(args.database_connections));
    let opened = engine.run(move || open_store(database, connections)).await??;
    let Record { store, front, identity } = opened.record(connections);
    let farm = store.farm_id().await.map_err(not_started)?;
    let beyond_loopback = !listener.is_loopback();
    let door = args.door.decide(front.as_ref(), beyond_loopback).await?;
    let url = args.redis.clone();
    let connect = move || async move {
        RedisQueue::connect(url.expose(), &farm.to_string(), redis::Options::default()).await
    };
    let queue = engine.run(connect).await?;
    let queue = queue.map_err(|error| error.to_user())?;
    queue.claim_farm(&identity).await.map_err(|error| error.to_user())?;
    let queue = Arc::new(queue);
    agree_on_lease(&mut options, &args, store.as_ref(), &queue).await?;
    decide_on_sharing(args.sharing, store.as_ref()).await.map_err(not_started)?;
    warn_of(&queue).await;
    for bundle in &bundles {
        cascade_store::publish(&artifacts, bundle).await?;
    }
    let cascades: Vec<Cascade> = bundles.iter().map(|bundle| bundle.cascade().clone()).collect();
    let tasks = Arc::clone(&queue) as Arc<dyn TaskQueue>;
    let storage = artifacts.clone();
    let asked = Arc::clone(&front);
    let start =
        move || Coordinator::start_fronted(options, store, front, tasks, artifacts, cascades);
    let handle = engine.run(start).await?.map_err(|error| error.to_user())?;

    let mut serve =
        server_options(&["darkroom.v1.Farm", "darkroom.v1.Admin", "darkroom.v1.Members"]);
    serve.connections = args.max_connections;
    let closing = CancellationToken::new();
    let (address, tls) = (listener.address(), listener.speaks_tls());
    let routes = Routes::new(grpc::service(handle.calls()))
        .add_service(grpc::admin_service(handle.admin_calls()))
        .add_service(members::service(handle.members()));
    let callers = match door {
        Door::Open => handle.open_door(),
        Door::Kept => handle.kept_door(),
    };
    let (site, site_tasks, batches) = darkroom_web::router(darkroom_web::Parts {
        farm: handle.calls(),
        admin: handle.admin_calls(),
        batches: handle.batches(),
        callers: callers.clone(),
        seals: handle.seals(),
        tls,
        settings: args.site.clone(),
    });
    serve.web = Some(darkroom_web::web());
    let around = |routes| darkroom_web::beside(grpc::behind(callers, routes), site);
    let (health, serving) = server::serve_within(listener, routes, around, serve, closing.clone())
        .await
        .map_err(|error| error.to_user())?;
    let mut serving = tokio::spawn(serving);
    let stop_batches = CancellationToken::new();
    let batches = tokio::spawn(batches.run(stop_batches.clone()));
    tracing::info!(%address, tls, farm.id = %farm, "serving");
    let (stored, storage_trouble) = watch::channel(None);
    let (recorded, store_trouble) = watch::channel(None);
    let troubles = Troubles { store: store_trouble, storage: storage_trouble };
    // If the server has ended, the coordinator ends too.
    let ended = tokio::select! {
        () = tell_health(&handle, &queue, &identity, &troubles, &health) => None,
        () = watch_store(&handle, asked.as_ref(), &recorded) => None,
        () = watch_storage(&storage, &stored) => None,
        () = stop.cancelled() => None,
        ended = &mut serving => Some(ended),
    };
    health.not_serving("shutting down").await;
    // Before the record is closed: a step that is under way is left, and done again.
    stop_batches.cancel();
    if let Err(error) = batches.await {
        tracing::error!(%error, "the work on batches ended early");
    }
    handle.shutdown().await;
    closing.cancel();
    let ended = match ended {
        Some(ended) => ended,
        None => serving.await,
    };
    site_tasks.end().await;
    match ended {
        Ok(ended) => ended.map_err(|error| error.to_user()),
        Err(error) => Err(UserError::new(Code::Internal, "INTERNAL", error.to_string())),
    }
}

/// Takes the farm's lease time, which all coordinators of a farm share. With a shorter one, this
/// coordinator would take tasks from live workers, because they send heartbeats by the farm's lease
/// time.
async fn agree_on_lease(
    options: &mut Options,
    args: &CoordinatorArgs,
    store: &dyn Agreed,
    queue: &RedisQueue,
) -> Result<(), UserError> {
    let requested = options.lease;
    let mut lease = store.set_lease(None, requested).await.map_err(not_started)?;
    if args.lease_seconds.is_some() && lease != requested {
        let there = queue.workers(lease.max(requested)).await.map_err(unavailable)?;
        if there.is_empty() {
            lease = store.set_lease(Some(lease), requested).await.map_err(not_started)?;
        }
        if lease != requested {
            let message = format!(
                "lease-seconds is {}, and this farm's leases last {} seconds; leave it out, or change it while no other \
                 coordinator and no worker of the farm runs",
                requested.as_secs_f64(),
                lease.as_secs_f64()
            );
            return Err(UserError::invalid("lease-seconds", message));
        }
    }
    options.lease = lease;
    options.worker_ttl = options.worker_ttl.max(lease);
    Ok(())
}

/// Records how tenants share, if the operator says it. Jobs that were submitted before keep what
/// they have.
async fn decide_on_sharing(
    requested: Option<Sharing>,
    store: &dyn Store,
) -> Result<(), store::Error> {
    let Some(sharing) = requested else { return Ok(()) };
    if store.set_sharing(sharing).await? {
        tracing::info!(%sharing, "the operator has set how tenants share, for jobs from now on");
        note_own(store, "farm.sharing", sharing.to_string()).await;
    }
    Ok(())
}

fn unavailable(error: darkroom_queue::Error) -> UserError {
    UserError::new(Code::Unavailable, "UNAVAILABLE", error.to_string())
}

/// Logs advice about the settings of Redis. It works without these changes.
async fn warn_of(queue: &RedisQueue) {
    match queue.health().await {
        Ok(health) => health.warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::warn!(%error, "the settings of Redis could not be read"),
    }
}

async fn load(args: &CoordinatorArgs) -> Result<Vec<CascadeBundle>, UserError> {
    let (folders, without_files) = (args.cascades.clone(), args.without_files);
    let load = move || {
        let one = |folder: &PathBuf| match CascadeBundle::load(folder) {
            Err(_) if without_files => CascadeBundle::describe(folder),
            loaded => loaded,
        };
        CascadeBundle::distinct(folders.iter().map(one).collect::<Result<_, UserError>>()?)
    };
    tokio::task::spawn_blocking(load)
        .await
        .map_err(|error| UserError::new(Code::Internal, "INTERNAL", error.to_string()))?
}
