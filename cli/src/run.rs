//! From a parsed command line to an exit code: logging, the runtime, and the command.

use std::process::ExitCode;

use clap::CommandFactory as _;
use darkroom_core::error::UserError;
use darkroom_runtime::{files, shutdown, telemetry};

use crate::{
    args::{Cli, Command},
    failure::{self, Result},
    farm,
    flags::Flags,
    image_commands, jobs, keys, login, output,
    render::Render,
    tenants, webhooks, whole_farm,
};

/// Runs the command and returns its exit code.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let (json, flags) = (cli.json, Flags::of(&cli.command));
    match start(cli) {
        Ok(code) => code,
        // A command that only shows something, and whose reader has gone away.
        Err(failure) if output::is_closed(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure = flags.name(failure);
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failure::internal)?;
    runtime.block_on(async {
        files::survive_size_limit().map_err(failure::internal)?;
        dispatch(cli).await
    })
}

/// `up` logs what it does. The other commands print their results and log only problems.
fn log(cli: &Cli) -> Result<()> {
    let (default, format) = match &cli.command {
        Command::Up(up) if up.log_json => ("info", telemetry::Format::Json),
        Command::Up(_) => ("info", telemetry::Format::Human),
        _ => ("error", telemetry::Format::Human),
    };
    telemetry::init(default, format)
        .map_err(|error| UserError::invalid(telemetry::FILTER, error.to_string()))
}

/// A command looks for its farm when its flags are checked: those that have some are given the
/// place, the others the farm.
async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let json = cli.json;
    let place = &cli.place;
    match cli.command {
        Command::Render(args) => render(args, place, json).await?,
        Command::Submit(args) => jobs::submit(place, args, json).await?,
        Command::Status(args) => jobs::show(&farm::find(place)?.job(&args.job).await?, json)?,
        Command::Watch(args) => match &args.job {
            Some(job) => jobs::watch(&farm::find(place)?, job, &args, json).await?,
            None => whole_farm::watch(place, &args, json).await?,
        },
        Command::Ls(args) => jobs::ls(place, &args, json).await?,
        Command::Image(args) => crate::image::show(&farm::find(place)?, &args, json).await?,
        Command::Map(args) => crate::image_map::show(&farm::find(place)?, &args, json).await?,
        Command::Get(args) if args.stage.is_some() || args.max_edge.is_some() => {
            crate::previews::get(place, args, json).await?
        }
        Command::Failures(args) => jobs::failures(&farm::find(place)?, &args.job, json).await?,
        Command::Get(args) => jobs::get(place, args, json).await?,
        Command::Sheet(args) => crate::sheet::get(place, args, json).await?,
        Command::Verify(args) => crate::verify::verify(&farm::find(place)?, &args, json).await?,
        Command::Cancel(args) => image_commands::cancel(place, &args, json).await?,
        Command::Rm(args) => jobs::rm(&farm::find(place)?, &args, json).await?,
        Command::Pause(args) => jobs::show(&farm::find(place)?.pause(&args.job).await?, json)?,
        Command::Resume(args) => jobs::show(&farm::find(place)?.resume(&args.job).await?, json)?,
        Command::Retry(args) => image_commands::retry(place, &args, json).await?,
        Command::Queue => whole_farm::queue(&farm::find(place)?, json).await?,
        Command::History(args) => whole_farm::history(place, &args, json).await?,
        Command::Usage(args) => whole_farm::usage(place, &args, json).await?,
        Command::Workers => jobs::workers(&farm::find(place)?, json).await?,
        Command::Drain(args) => jobs::drain(&farm::find(place)?, args, json).await?,
        Command::Cascades => jobs::cascades(&farm::find(place)?, json).await?,
        Command::Farm => jobs::farm(&farm::find(place)?, json).await?,
        Command::Login => login::login(place, json).await?,
        Command::Logout => login::logout(place, json)?,
        Command::Webhook(command) => webhooks::run(command, place, json).await?,
        Command::Key(command) => keys::run(command, place, json).await?,
        Command::Tenant(command) => tenants::run(&command, place, json).await?,
        Command::Retention(command) => crate::retention::run(&command, place, json).await?,
        Command::Clean(args) => crate::retention::clean(&args, place, json).await?,
        Command::Audit(args) => tenants::audit(&args, place, json).await?,
        Command::Completions { .. } => {}
        #[cfg(feature = "embedded")]
        Command::Up(args) => crate::up::up(args, place, json).await?,
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

/// Renders on the farm that is named or runs here, or else on a temporary one.
async fn render(
    args: crate::args::RenderArgs,
    place: &crate::args::Place,
    json: bool,
) -> Result<()> {
    #[cfg(feature = "embedded")]
    let (machine, disk) = (args.machine.clone(), args.disk);
    #[cfg(feature = "embedded")]
    let cascade = args.request.cascade.clone();
    #[cfg(feature = "embedded")]
    let quiet = args.quiet || json;
    let render = Render::prepare(args, json)?;
    let stop = shutdown::on_signals().map_err(failure::internal)?;
    if let Some(client) = farm::running(place)? {
        return render.run(&client, &stop).await;
    }
    #[cfg(feature = "embedded")]
    {
        let options = crate::embedded::Options::for_occasion(
            &place.state,
            cascade.as_deref(),
            machine,
            disk,
        )?;
        let farm = crate::embedded::Farm::start(options).await?;
        if !quiet && let Some(told) = farm.budget_told().await.filter(|told| told.nearly_used) {
            output::note(&told.line);
        }
        let client = farm.client()?;
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

/// The job is accepted and is kept.
#[cfg(feature = "embedded")]
fn kept(mut full: UserError) -> UserError {
    full.message += "; the job is kept, and `darkroom up` on that folder finishes it";
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
