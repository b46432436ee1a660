//! `make chaos`: breaks a farm on purpose and says whether anything was lost.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use darkroom_chaos::{
    cluster::Setup,
    plan::Fault,
    run::{Options, run},
};
use tokio::signal::unix::{SignalKind, signal};

/// Runs jobs of fakes on a farm of real processes and servers while faults are injected, and checks every image.
#[derive(Debug, Parser)]
struct Args {
    /// Decides which faults come when; a run is repeated with the seed it printed
    #[arg(long)]
    seed: Option<u64>,
    /// Jobs of a round, one after another of every mood; rounds follow until the last fault
    #[arg(long, default_value_t = 10)]
    jobs: u32,
    /// Images of each
    #[arg(long, default_value_t = 400)]
    images: u32,
    /// How many faults; each comes once before any comes twice
    #[arg(long, default_value_t = Fault::all().len())]
    faults: usize,
    /// Longest pause between two faults, seconds
    #[arg(long, default_value_t = 3.0)]
    pause: f64,
    /// Seconds after which what has not ended counts as lost
    #[arg(long, default_value_t = 600.0)]
    limit: f64,
    /// Lease, seconds
    #[arg(long, default_value_t = 3.0)]
    lease: f64,
    /// Milliseconds that a step takes the fake renderer
    #[arg(long, default_value_t = 5.0)]
    step_ms: f64,
    /// Folder of the farm's binaries
    #[arg(long)]
    binaries: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let here = std::env::current_exe()?;
    let beside = here.parent().map(PathBuf::from).unwrap_or_default();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    let options = Options {
        seed,
        jobs: args.jobs,
        images: args.images,
        faults: Vec::new(),
        most_faults: args.faults,
        pause: Duration::from_secs_f64(args.pause),
        limit: Duration::from_secs_f64(args.limit),
        setup: Setup {
            binaries: args.binaries.unwrap_or(beside),
            lease: Duration::from_secs_f64(args.lease),
            step_ms: args.step_ms,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A signal ends the run by dropping it, and with it everything that it started.
    let report = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = run(&options) => report,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })?;
    print!("{}", report.table());
    Ok(if report.verdict.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
