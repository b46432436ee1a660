//! `darkroom-fuzz`: tries targets with mutated inputs (`make fuzz`).

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use darkroom_core::{digest::Digest, shown::shown_path};
use darkroom_fuzz::{
    corpus,
    drive::{self, End, Tally},
    measure, seeds,
    targets::{self, Target},
    verdict::Verdict,
};

/// A target whose latest input has been the same for so long is hung.
const HUNG: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(about = "Tries everything that reads bytes from outside with mutated inputs")]
struct Cli {
    #[command(subcommand)]
    command: Option<Action>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Action {
    /// Tries targets; all of them if none is named.
    Run(Run),
    /// Tries files, for example one that broke a promise.
    Check {
        /// The target.
        target: String,
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lists the targets.
    List,
    /// Writes the inputs that the repository's own files and code make into the corpora.
    Seeds,
    /// Tries one target in this process.
    #[command(hide = true)]
    One(Run),
}

#[derive(Args, Clone)]
struct Run {
    /// Targets.
    targets: Vec<String>,
    /// Mutated inputs per target.
    #[arg(long, default_value_t = 200_000)]
    count: u64,
    /// Another seed makes other inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where inputs that break a promise are saved.
    #[arg(long, default_value = "target/fuzz")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Action::Run(cli.run)) {
        Action::Run(run) => all(&run),
        Action::Check { target, files } => check(&target, &files),
        Action::List => list(),
        Action::Seeds => seeds::write().context("the corpora cannot be written"),
        Action::One(run) => one(&run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Result<&'static Target> {
    let names = || targets::ALL.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    targets::find(name).with_context(|| format!("target is {name:?}; accepted: {}", names()))
}

fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for target in targets::ALL {
        writeln!(out, "{}", target.name)?;
    }
    Ok(())
}

fn check(name: &str, files: &[PathBuf]) -> Result<()> {
    let target = find(name)?;
    for path in files {
        let bytes =
            fs::read(path).with_context(|| format!("{} cannot be read", shown_path(path)))?;
        match measure::run(target, &bytes) {
            Ok(Verdict::Accepted(shape)) => writeln!(io::stdout(), "accepted: {shape}")?,
            Ok(Verdict::Refused(sentence)) => writeln!(io::stdout(), "refused: {sentence}")?,
            Err(why) => bail!("{}: {why}", shown_path(path)),
        }
    }
    Ok(())
}

/// Tries each target in a process of its own: one that overflows the stack takes only itself along.
fn all(run: &Run) -> Result<()> {
    let chosen: Vec<&Target> = match run.targets.as_slice() {
        [] => targets::ALL.iter().collect(),
        names => names.iter().map(|name| find(name)).collect::<Result<_>>()?,
    };
    fs::create_dir_all(&run.out)?;
    row(["target", "inputs", "accepted", "seconds", "a second", "corpus", "kept"])?;
    let (mut inputs, begin) = (0, Instant::now());
    for target in chosen {
        let tally = in_a_process(target, run)?;
        inputs += tally.inputs;
        let rate = tally.inputs as f64 / tally.time.as_secs_f64().max(0.001);
        row([
            target.name,
            &tally.inputs.to_string(),
            &format!("{} %", 100 * tally.accepted / tally.inputs.max(1)),
            &format!("{:.1}", tally.time.as_secs_f64()),
            &format!("{rate:.0}"),
            &tally.files.to_string(),
            &tally.kept.to_string(),
        ])?;
    }
    writeln!(
        io::stdout(),
        "\n{inputs} inputs in {:.0} s; none broke a promise.",
        begin.elapsed().as_secs_f64()
    )?;
    Ok(())
}

fn row(cells: [&str; 7]) -> Result<()> {
    let [name, rest @ ..] = cells;
    let mut line = format!("{name:<14}");
    for cell in rest {
        line += &format!("{cell:>10}");
    }
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// The file that holds the latest input of a target.
fn latest(run: &Run, target: &Target) -> PathBuf {
    run.out.join(format!("{}.latest", target.name))
}

fn in_a_process(target: &Target, run: &Run) -> Result<Tally> {
    let output = Command::new(std::env::current_exe()?)
        .args(["one", target.name])
        .args(["--count", &run.count.to_string(), "--seed", &run.seed.to_string()])
        .arg("--out")
        .arg(&run.out)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return tally_of(&text).context("the process of a target says nothing");
    }
    if output.status.code() == Some(FOUND) {
        bail!("{}", text.trim());
    }
    // Nothing caught it: the stack, the allocator, a signal, or a watch that gave up.
    let input = fs::read(latest(run, target))?;
    let saved = save(target, run, &input)?;
    bail!("{}", report(target, &saved, &format!("its process ended with {}", output.status)));
}

/// Exit code of a process that has reported a broken promise.
const FOUND: i32 = 3;

fn one(run: &Run) -> Result<()> {
    let [name] = run.targets.as_slice() else { bail!("one target") };
    let target = find(name)?;
    fs::create_dir_all(&run.out)?;
    let path = latest(run, target);
    let file = File::options().create(true).read(true).write(true).truncate(true).open(&path)?;
    give_up_when_hung(path.clone());
    let options = drive::Options { count: run.count, seed: run.seed, latest: Some(&file) };
    match drive::run(target, &options) {
        Ok(Tally { inputs, accepted, files, kept, time }) => {
            fs::remove_file(path)?;
            writeln!(io::stdout(), "{inputs} {accepted} {files} {kept} {}", time.as_millis())?;
            Ok(())
        }
        Err(End::Io(error)) => Err(error.into()),
        Err(End::Failed(failure)) => {
            let saved = save(target, run, &failure.input)?;
            writeln!(io::stdout(), "{}", report(target, &saved, &failure.why))?;
            std::process::exit(FOUND);
        }
    }
}

fn tally_of(text: &str) -> Option<Tally> {
    let numbers: Vec<u64> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [inputs, accepted, files, kept, milliseconds] = *numbers.as_slice() else { return None };
    Some(Tally {
        inputs,
        accepted,
        files: usize::try_from(files).ok()?,
        kept: usize::try_from(kept).ok()?,
        time: Duration::from_millis(milliseconds),
    })
}

/// Ends the process when the latest input has been the same for too long.
fn give_up_when_hung(path: PathBuf) {
    std::thread::spawn(move || {
        let changed = || fs::metadata(&path).and_then(|file| file.modified()).ok();
        let (mut before, mut since) = (changed(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = changed();
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() > HUNG {
                std::process::abort();
            }
        }
    });
}

fn save(target: &Target, run: &Run, input: &[u8]) -> Result<PathBuf> {
    let path = run.out.join(format!("{}-{}", target.name, Digest::of(input).short()));
    fs::write(&path, input)?;
    Ok(path)
}

fn report(target: &Target, saved: &Path, why: &str) -> String {
    let (name, path) = (target.name, shown_path(saved));
    let kept = corpus::regressions().join(name);
    format!(
        "{name} breaks a promise: {why}\n\
         The input is {path}. To repeat it:\n\
         \x20   make fuzz ARGS='check {name} {path}'\n\
         Once it is fixed, keep the input in {}.",
        shown_path(&kept)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_comes_back_from_its_process() {
        let tally = tally_of("10 7 3 2 1500").expect("a tally");
        assert_eq!(
            (tally.inputs, tally.accepted, tally.time),
            (10, 7, Duration::from_millis(1500))
        );
        assert_eq!(tally_of(""), None);
    }
}
