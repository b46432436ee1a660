//! From a parsed command line to an exit code: logging, the runtime, and the command.

use std::process::ExitCode;

use clap::CommandFactory as _;
use darkroom_core::error::UserError;
use darkroom_runtime::{files, shutdown, telemetry};

use crate::{
    args::{Cli, Command},
    deadline,
    failure::{self, Result},
    farm, jobs, output,
    render::Render,
};

/// Runs the command and says how it went.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    match start(cli) {
        Ok(code) => code,
        // A command that only shows something, and whose reader has seen enough.
        Err(failure) if output::is_closed(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::print(&failure, json);
            ExitCode::from(failure.code.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "darkroom", &mut script);
        output::raw(String::from_utf8_lossy(&script).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    log(&cli)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failure::internal)?;
    runtime.block_on(async {
        files::survive_size_limit().map_err(failure::internal)?;
        dispatch(cli).await
    })
}

/// `up` tells what it does; the other commands speak for themselves and log only what is wrong.
fn log(cli: &Cli) -> Result<()> {
    let (default, format) = match &cli.command {
        Command::Up(up) if up.log_json => ("info", telemetry::Format::Json),
        Command::Up(_) => ("info", telemetry::Format::Human),
        _ => ("error", telemetry::Format::Human),
    };
    telemetry::init(default, format).map_err(|error| UserError::invalid(telemetry::FILTER, error.to_string()))
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let json = cli.json;
    let place = &cli.place;
    match cli.command {
        Command::Render(args) => render(args, &cli.place, json).await?,
        Command::Submit(args) => jobs::submit(&farm::find(place)?, args, json).await?,
        Command::Status(args) => jobs::show(&farm::find(place)?.job(&args.job).await?, json)?,
        Command::Watch(args) => jobs::watch(&farm::find(place)?, &args, json).await?,
        Command::Ls(args) => jobs::ls(&farm::find(place)?, &args, json).await?,
        Command::Get(args) => jobs::get(&farm::find(place)?, args, json).await?,
        Command::Verify(args) => crate::verify::verify(&farm::find(place)?, &args, json).await?,
        Command::Cancel(args) => jobs::show(&farm::find(place)?.cancel(&args.job).await?, json)?,
        Command::Pause(args) => jobs::show(&farm::find(place)?.pause(&args.job).await?, json)?,
        Command::Resume(args) => jobs::show(&farm::find(place)?.resume(&args.job).await?, json)?,
        Command::Retry(args) => jobs::show(&farm::find(place)?.retry(deadline::retry(&args)?).await?, json)?,
        Command::Workers => jobs::workers(&farm::find(place)?, json).await?,
        Command::Drain(args) => jobs::drain(&farm::find(place)?, args, json).await?,
        Command::Cascades => jobs::cascades(&farm::find(place)?, json).await?,
        Command::Farm => jobs::farm(&farm::find(place)?, json).await?,
        Command::Completions { .. } => {}
        #[cfg(feature = "embedded")]
        Command::Up(args) => crate::up::up(args, &cli.place, json).await?,
        #[cfg(feature = "embedded")]
        Command::Rerender(args) => return crate::rerender::rerender(args, json).await,
        #[cfg(feature = "embedded")]
        Command::Model(command) => return crate::model::run(command, json).await,
        #[cfg(not(feature = "embedded"))]
        Command::Up(_) | Command::Rerender(_) | Command::Model(_) => {
            return Err(client_only());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Renders on the farm that is named or runs here; else on one for the occasion.
async fn render(args: crate::args::RenderArgs, place: &crate::args::Place, json: bool) -> Result<()> {
    #[cfg(feature = "embedded")]
    let machine = args.machine.clone();
    #[cfg(feature = "embedded")]
    let cascade = args.request.cascade.clone();
    let render = Render::prepare(args, json)?;
    let stop = shutdown::on_signals().map_err(failure::internal)?;
    if let Some(client) = farm::running(place)? {
        return render.run(&client, &stop).await;
    }
    #[cfg(feature = "embedded")]
    {
        let options = crate::embedded::Options::for_occasion(&place.state, cascade.as_deref(), machine)?;
        let farm = crate::embedded::Farm::start(options).await?;
        let client = crate::client::Client::new(&farm.address().to_string())?;
        let rendered = tokio::select! {
            rendered = render.run(&client, &stop) => rendered,
            full = farm.full() => Err(kept(full)),
        };
        let ended = farm.shut_down().await;
        rendered.and(ended)
    }
    #[cfg(not(feature = "embedded"))]
    Err(farm::none(&place.state))
}

/// The job is accepted and stays so.
#[cfg(feature = "embedded")]
fn kept(mut full: UserError) -> UserError {
    full.message += "; what was asked for is kept, and `darkroom up` on that folder finishes it";
    full
}

#[cfg(not(feature = "embedded"))]
fn client_only() -> UserError {
    UserError::new(
        darkroom_core::error::Code::FailedPrecondition,
        "CLIENT_ONLY",
        "this darkroom is built as a client only; build it with the feature `embedded` for this command",
    )
}
