//! How long GetJob takes for one tenant while another sends ten times the calls that its quota
//! allows, over gRPC with keys: calm, and under the flood.
//!
//! The coordinator and its Postgres run here; the tenant that floods is a process of its own, as it
//! would be on a farm.
//!
//! It prints whether the p99 stays within twice its calm value or 20 ms.
//!
//! `cargo run --release --example quota_flood -- [--rate 100] [--seconds 30] [--url postgres://…]`

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an internal tool; nobody closes its output early"
)]

use std::{
    error::Error,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Coordinator, Handle, fresh_key, server_options,
    store::{
        Store,
        keys::{Expiry, NewKey, Proof, TenantChange},
        postgres::{Options, PostgresStore},
        roles::{Keys as _, Tenants as _},
    },
};
use darkroom_core::{
    digest::Digest,
    key::Key,
    quota::{QuotaChange, Quotas},
    scope::Scope,
};
use darkroom_farm_api::grpc;
use darkroom_proto::v1::{GetJobRequest, farm_client::FarmClient};
use darkroom_queue::memory::MemoryQueue;
use darkroom_runtime::{server, tls::Privacy};
use darkroom_suites::{cascade, store::samples};
use darkroom_test_servers::postgres::Postgres;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Calls a second of the tenant that is measured.
const ASKED: f64 = 50.0;
/// How many times its rate the other tenant sends.
const TIMES: f64 = 10.0;
/// The p99 under the flood that is fine whatever it was before, ms.
const ALLOWED: f64 = 20.0;
/// Calls of the flood that are under way at one time, at most.
const AT_ONCE: usize = 64;

struct Arguments {
    rate: f64,
    seconds: f64,
    url: Option<String>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut arguments = Self { rate: 100.0, seconds: 30.0, url: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--rate" => arguments.rate = value()?.parse()?,
                "--seconds" => arguments.seconds = value()?.parse()?,
                "--url" => arguments.url = Some(value()?),
                _ => return Err(format!("unknown argument {word}").into()),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flood, address, key, job, rate, seconds] = words.as_slice()
        && flood == "flood"
    {
        return self::flood(address, key, job, (rate.parse()?, seconds.parse()?)).await;
    }
    let arguments = Arguments::parse(words.into_iter())?;
    let server = arguments.url.is_none().then(Postgres::start);
    let url = match (&arguments.url, &server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.create_database(),
        (None, None) => return Err("no server".into()),
    };
    let farm = Farm::start(&url, arguments.rate).await?;
    measure(&farm, &arguments).await?;
    farm.stop().await
}

/// Measures calm, under the flood, and calm again, and prints a table.
async fn measure(farm: &Farm, arguments: &Arguments) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores; a quota of {} calls a second\n", arguments.rate);
    println!(
        "| the other tenant sends | GetJob p50, ms | p99, ms | calls | its calls answered | refused |"
    );
    println!("|---|---|---|---|---|---|");
    // Connections and statements are warm before anything counts.
    farm.get_jobs(2.0).await?;
    let calm = row("nothing", &mut farm.get_jobs(arguments.seconds).await?, None);
    let flood = farm.flood(arguments)?;
    let mut times = farm.get_jobs(arguments.seconds).await?;
    let answered = flood.wait_with_output()?;
    let told = String::from_utf8(answered.stdout)?;
    let counts: Vec<u64> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [passed, refused] = counts.as_slice() else { return Err("the flood broke".into()) };
    let sent = format!("{} calls a second", arguments.rate * TIMES);
    let flooded = row(&sent, &mut times, Some((*passed, *refused)));
    row("nothing, again", &mut farm.get_jobs(arguments.seconds).await?, None);
    let most = (2.0 * calm).max(ALLOWED);
    let holds = if flooded <= most { "holds" } else { "does not hold" };
    println!(
        "\nA p99 within twice its calm value or {ALLOWED} ms {holds}: {flooded:.2} ms, and at most \
         {most:.2} ms are allowed."
    );
    Ok(())
}

/// Prints a row, and returns the p99, ms.
fn row(name: &str, times: &mut [Duration], flood: Option<(u64, u64)>) -> f64 {
    times.sort_unstable();
    let at = |share: usize| {
        let place = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let (p50, p99) = (at(50), at(99));
    let (passed, refused) = flood.map_or((String::new(), String::new()), |(passed, refused)| {
        (passed.to_string(), refused.to_string())
    });
    println!("| {name} | {p50:.2} | {p99:.2} | {} | {passed} | {refused} |", times.len());
    p99
}

/// A coordinator with keys, a job of each tenant, and its port.
struct Farm {
    handle: Handle,
    address: String,
    stop: CancellationToken,
    quiet: (Key, String),
    busy: (Key, String),
}

impl Farm {
    async fn start(url: &str, rate: f64) -> Result<Self, Failure> {
        let open = async || PostgresStore::connect(url, Options::default()).await;
        let (store, front) = (Arc::new(open().await?), Arc::new(open().await?));
        let cascade = cascade::without_files(2);
        let keys = [added(store.as_ref(), "quiet").await?, added(store.as_ref(), "busy").await?];
        let set = Quotas { requests_per_second: Some(rate), ..Quotas::default() };
        let quotas = QuotaChange { set, ..QuotaChange::default() };
        store.set_tenant("busy", &TenantChange { quotas, ..TenantChange::default() }).await?;
        let (store, front): (Arc<dyn Store>, Arc<dyn Store>) = (store, front);
        let handle = Coordinator::start_fronted(
            darkroom_coordinator::Options::default(),
            Arc::clone(&store),
            front,
            Arc::new(MemoryQueue::default()),
            ArtifactStore::in_memory(),
            vec![cascade.clone()],
        )
        .await?;
        let mut jobs = Vec::new();
        for tenant in ["quiet", "busy"] {
            let mut job = samples::job(&cascade);
            job.tenant = tenant.to_owned();
            let prompts = [samples::prompt(&cascade.encoder_digest(), 0, "a text", 100)];
            store.submit(&job, &prompts, Digest::of(tenant.as_bytes())).await?;
            jobs.push(job.id.to_string());
        }
        let listener = server::listen(&"127.0.0.1:0".parse()?, &Privacy::Loopback).await?;
        let address = format!("http://{}", listener.address());
        let routes = Routes::new(grpc::service(handle.calls()));
        let (door, stop) = (handle.kept_door(), CancellationToken::new());
        let around = |routes| grpc::behind(door, routes);
        let options = server_options(&["darkroom.v1.Farm"]);
        let (_, serving) =
            server::serve_within(listener, routes, around, options, stop.clone()).await?;
        tokio::spawn(serving);
        let [quiet, busy] = keys;
        let mut jobs = jobs.into_iter();
        let mut of = |key| jobs.next().map(|job| (key, job)).ok_or("no job");
        let (quiet, busy) = (of(quiet)?, of(busy)?);
        Ok(Self { handle, address, stop, quiet, busy })
    }

    /// How long each GetJob of the quiet tenant takes for this many seconds.
    async fn get_jobs(&self, seconds: f64) -> Result<Vec<Duration>, Failure> {
        let mut farm = client(&self.address, &self.quiet.0.expose()).await?;
        let request = GetJobRequest { id: self.quiet.1.clone() };
        let mut ticks = interval(Duration::from_secs_f64(1.0 / ASKED));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed().as_secs_f64() < seconds {
            ticks.tick().await;
            let asked = Instant::now();
            farm.get_job(request.clone()).await?;
            times.push(asked.elapsed());
        }
        Ok(times)
    }

    /// Starts the process that floods.
    fn flood(&self, arguments: &Arguments) -> Result<Child, Failure> {
        let (key, job) = (self.busy.0.expose(), &self.busy.1);
        let rate = (arguments.rate * TIMES).to_string();
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["flood", &self.address, &key, job, &rate, &arguments.seconds.to_string()]);
        Ok(program.stdout(Stdio::piped()).spawn()?)
    }

    async fn stop(self) -> Result<(), Failure> {
        self.stop.cancel();
        self.handle.shutdown().await;
        Ok(())
    }
}

async fn added(store: &PostgresStore, tenant: &str) -> Result<Key, Failure> {
    let key = fresh_key()?;
    let new = NewKey {
        id: key.id().clone(),
        proof: Proof::Secret(key.hash()),
        tenant: Some(tenant.to_owned()),
        scopes: [Scope::Read].into(),
        label: String::new(),
        expiry: Expiry::Never,
    };
    store.add_key(&new).await?;
    Ok(key)
}

/// Shows a key with each call.
#[derive(Clone)]
struct Shows(String);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = self.0.parse().map_err(|_| Status::internal("a key is ASCII"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

type Client = FarmClient<InterceptedService<Channel, Shows>>;

async fn client(address: &str, key: &str) -> Result<Client, Failure> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
    Ok(FarmClient::with_interceptor(channel, Shows(format!("Bearer {key}"))))
}

/// Sends GetJob at a rate, however fast it is answered, and prints how many were answered and how
/// many refused by the quota.
async fn flood(
    address: &str,
    key: &str,
    job: &str,
    (rate, seconds): (f64, f64),
) -> Result<(), Failure> {
    let farm = client(address, key).await?;
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    let (mut passed, mut refused) = (0_u64, 0_u64);
    let mut count = |answer: Result<Code, tokio::task::JoinError>| match answer {
        Ok(Code::Ok) => passed += 1,
        Ok(Code::ResourceExhausted) => refused += 1,
        other => eprintln!("a call of the flood ended with {other:?}"),
    };
    while began.elapsed().as_secs_f64() < seconds {
        ticks.tick().await;
        if calls.len() >= AT_ONCE
            && let Some(answer) = calls.join_next().await
        {
            count(answer);
        }
        let (mut farm, request) = (farm.clone(), GetJobRequest { id: job.to_owned() });
        calls.spawn(
            async move { farm.get_job(request).await.map_or_else(|s| s.code(), |_| Code::Ok) },
        );
    }
    while let Some(answer) = calls.join_next().await {
        count(answer);
    }
    println!("{passed} {refused}");
    Ok(())
}
