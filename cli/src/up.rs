//! `darkroom up`: the whole farm in this process until a signal ends it, with its state in one
//! folder.

use std::{io::IsTerminal as _, path::PathBuf};

use darkroom_core::{error::UserError, shown::shown};
use darkroom_runtime::{
    config,
    disk::{ByteLimit, ByteSize},
    listen::Listen,
    shutdown,
    terminal::shown_path,
};
use darkroom_web::{ModelAlias, Price, PublicUrl};
use serde::Deserialize;
use serde_json::json;

use crate::{
    args::{Place, UpArgs},
    embedded::{self, Door, Farm, Stay},
    failure::{self, Result},
    output,
};

/// The default address.
fn default_listen() -> Listen {
    std::net::SocketAddr::from(([127, 0, 0, 1], 7878)).into()
}

/// The keys that `--config` may have; flags override them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: Option<Listen>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    plaintext: bool,
    open: bool,
    cascades: Vec<PathBuf>,
    device: Option<String>,
    dtype: Option<String>,
    threads: Option<usize>,
    batch: Option<usize>,
    disk_budget: Option<ByteLimit>,
    disk_budget_pictures: bool,
    disk_floor: Option<ByteSize>,
    http_hosts: Vec<String>,
    public_url: Option<PublicUrl>,
    device_hour_price: Option<Price>,
    model_aliases: Vec<ModelAlias>,
    webhook_private_addresses: bool,
}

/// Runs the farm until it is stopped, and then lets short work finish.
pub(crate) async fn up(args: UpArgs, place: &Place, as_json: bool) -> Result<()> {
    let stop = shutdown::on_signals().map_err(failure::internal)?;
    let farm = Farm::start(options(args, place)?).await?;
    let told = tell(&farm, place, as_json).await;
    if let Some(failure) = told.err().filter(|failure| !output::is_closed(failure)) {
        // The user would not learn the farm's address.
        let _ = farm.shut_down().await;
        return Err(failure);
    }
    stop.cancelled().await;
    farm.shut_down().await
}

async fn tell(farm: &Farm, place: &Place, as_json: bool) -> Result<()> {
    if as_json {
        output::json(&output::with_path(
            json!({
                "address": farm.address(),
                "page": farm.page(),
                "pid": std::process::id(),
                "cascades": farm.cascades(),
            }),
            "state",
            &place.state,
        ))
    } else {
        output::line(&format!(
            "darkroom serves {} at {}; state in {}; stop it with Ctrl-C",
            shown(&farm.cascades().join(", ")),
            farm.address(),
            shown_path(&place.state)
        ))?;
        output::line(&match farm.link() {
            // A log or a pipe would keep the key that is in it.
            Some(link) if std::io::stdout().is_terminal() => format!("open {link} in a browser"),
            Some(_) => format!(
                "open {} in a browser, and log in with the key in {}",
                farm.page(),
                shown_path(&place.state.join("farm.key"))
            ),
            None => format!("open {} in a browser", farm.page()),
        })?;
        farm.budget_told().await.map_or(Ok(()), |told| output::line(&told.line))
    }
}

fn options(args: UpArgs, place: &Place) -> Result<embedded::Options> {
    let file: File = match &args.config {
        Some(path) => {
            config::load(path).map_err(|error| UserError::invalid("config", error.to_string()))?
        }
        None => File::default(),
    };
    let mut machine = args.machine;
    machine.device = machine.device.or(file.device);
    machine.dtype = machine.dtype.or(file.dtype);
    machine.threads = machine.threads.or(file.threads);
    machine.batch = machine.batch.or(file.batch);
    let mut disk = args.disk;
    disk.disk_budget = disk.disk_budget.or(file.disk_budget);
    disk.disk_budget_pictures |= file.disk_budget_pictures;
    disk.disk_floor = disk.disk_floor.or(file.disk_floor);
    let mut site = args.site;
    if site.http_hosts.is_empty() {
        site.http_hosts = file.http_hosts;
    }
    if site.model_aliases.is_empty() {
        site.model_aliases = file.model_aliases;
    }
    site.public_url = site.public_url.or(file.public_url);
    site.device_hour_price = site.device_hour_price.or(file.device_hour_price);
    let mut tls = args.tls;
    tls.tls_cert = tls.tls_cert.or(file.tls_cert);
    tls.tls_key = tls.tls_key.or(file.tls_key);
    tls.tls_client_ca = tls.tls_client_ca.or(file.tls_client_ca);
    tls.plaintext |= file.plaintext;
    let mut cascades = if args.cascades.is_empty() { file.cascades } else { args.cascades };
    if cascades.is_empty() {
        cascades.push(embedded::demo_cascade()?);
    }
    Ok(embedded::Options {
        state: place.state.clone(),
        listen: args.listen.or(file.listen).unwrap_or_else(default_listen),
        privacy: tls.open()?,
        door: if args.open || file.open { Door::Open } else { Door::Kept },
        cascades,
        machine,
        disk,
        site,
        webhook_private_addresses: args.webhook_private_addresses || file.webhook_private_addresses,
        stay: Stay::Service,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_configuration_is_one_that_up_takes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/darkroom.toml");
        let file: File = config::load(&path).expect("the sample is valid");
        assert_eq!(file.listen, Some(default_listen()), "the sample shows the default");
        assert_eq!(file.cascades, [PathBuf::from("models/demo")]);
    }
}
