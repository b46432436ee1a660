//! `make chaos`: breaks a farm on purpose and says whether anything was lost.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use darkroom_chaos::{
    cluster::{Real, Setup},
    options::Options,
    plan::{Fault, Storage},
    run::run,
};
use darkroom_core::cascade::CascadeSpec;
use tokio::signal::unix::{SignalKind, signal};

/// Runs jobs of fakes on a farm of real processes and servers while faults are injected, and checks
/// every image.
#[derive(Debug, Parser)]
struct Args {
    /// Decides which faults come when. To repeat a run, pass the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// Jobs per round, with the moods in turn; rounds follow until the last fault
    #[arg(long, default_value_t = 5)]
    jobs: u32,
    /// Images per job
    #[arg(long, default_value_t = 2000)]
    images: u32,
    /// Number of faults; each comes once before any comes twice. Default: all, once each
    #[arg(long)]
    faults: Option<usize>,
    /// Only faults of this name, as the table prints them; may be repeated
    #[arg(long, value_name = "FAULT")]
    only: Vec<String>,
    /// Where artifacts are kept; each kind has its own faults
    #[arg(long, value_enum, default_value_t = Kept::Both)]
    storage: Kept,
    /// Longest pause between two faults, seconds
    #[arg(long, default_value_t = 3.0)]
    pause: f64,
    /// Seconds after which unfinished jobs count as lost
    #[arg(long, default_value_t = 1200.0)]
    limit: f64,
    /// Lease, seconds
    #[arg(long, default_value_t = 3.0)]
    lease: f64,
    /// Milliseconds per step of the fake renderer
    #[arg(long, default_value_t = 5.0)]
    step_ms: f64,
    /// Folder of the farm's binaries
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Folder of a darkroom-worker and a darkroom-encoder built with libtorch, which render one
    /// real job beside the fakes
    #[arg(long, requires = "cascade", value_name = "DIR")]
    real_binaries: Option<PathBuf>,
    /// The cascade that they use
    #[arg(long, requires = "real_binaries", value_name = "DIR")]
    cascade: Option<PathBuf>,
    /// Images of that job
    #[arg(long, default_value_t = 24)]
    real_images: u32,
}

/// Where artifacts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kept {
    /// On an S3 server.
    S3,
    /// In a folder that several processes share; some clocks are wrong.
    Folder,
    /// A run with each.
    Both,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let here = std::env::current_exe()?;
    let beside = here.parent().map(PathBuf::from).unwrap_or_default();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    let kinds: &[Storage] = match args.storage {
        Kept::S3 => &[Storage::S3],
        Kept::Folder => &[Storage::Folder],
        Kept::Both => &[Storage::S3, Storage::Folder],
    };
    let real = match (&args.real_binaries, &args.cascade) {
        (Some(binaries), Some(cascade)) => Some(real(binaries, cascade)?),
        _ => None,
    };
    let binaries = args.binaries.clone().unwrap_or(beside);
    let mut good = true;
    for kind in kinds {
        let mut faults = Fault::all(*kind);
        faults.retain(|fault| args.only.is_empty() || args.only.contains(&fault.name()));
        if faults.is_empty() {
            let names =
                Fault::all(*kind).into_iter().map(Fault::name).collect::<Vec<_>>().join(", ");
            bail!(
                "--only names an unknown fault for a farm with artifacts in {kind:?}; accepted: \
                {names}"
            );
        }
        let options = Options {
            seed,
            jobs: args.jobs,
            images: args.images,
            most_faults: args.faults.unwrap_or(faults.len()),
            faults,
            pause: Duration::from_secs_f64(args.pause),
            real_images: args.real_images,
            limit: Duration::from_secs_f64(args.limit),
            setup: Setup {
                binaries: binaries.clone(),
                lease: Duration::from_secs_f64(args.lease),
                step_ms: args.step_ms,
                storage: *kind,
                real: real.clone(),
            },
        };
        println!("\n## artifacts in: {kind:?}\n");
        good &= one(&options)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does one run and prints its table. Returns true if nothing was wrong.
fn one(options: &Options) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A signal ends the run by dropping it, which ends everything that it started.
    let report = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = run(options) => report,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })?;
    print!("{}", report.table());
    Ok(report.verdict.problems.is_empty())
}

fn real(binaries: &Path, cascade: &Path) -> anyhow::Result<Real> {
    let path = cascade.join("cascade.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let name = CascadeSpec::parse(&text)?.name;
    Ok(Real { binaries: binaries.to_owned(), cascade: cascade.canonicalize()?, name })
}
