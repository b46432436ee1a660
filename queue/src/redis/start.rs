//! Whether this Redis can be used: one clear sentence for each reason why not.

use std::time::Duration;

use redis::{ErrorKind, RedisError, from_redis_value};
use tokio::time::{Instant, sleep};

use super::{
    connection::Link,
    health::{Health, read_health},
    keys::FarmKeys,
    script::SCRIPTS,
    start_error::StartError,
};

/// A mark that was not renewed for this long belongs to nobody. Live coordinators renew it every
/// few seconds. Redis does not count the time while it saves to disk.
const FORSAKEN: i64 = 60;
/// Time between two looks at the mark.
const LOOK: Duration = Duration::from_millis(200);

/// What servers of several versions say to a user who may run a script but not a command inside it.
const DENIED_IN_SCRIPT: [&str; 2] =
    ["The user executing the script can't", "ACL failure in script"];

/// Reads the server's facts and refuses an unsuitable server.
pub(super) async fn check(link: &Link, farm: &FarmKeys) -> Result<Health, StartError> {
    let health = read_health(link, farm).await.map_err(|error| explain(link, &error))?;
    if !health.is_new_enough() {
        return Err(StartError::TooOld { address: link.address(), version: health.version });
    }
    Ok(health)
}

pub(super) async fn claim(link: &Link, farm: &FarmKeys, mine: &str) -> Result<(), StartError> {
    let mut call = SCRIPTS.claim.call(&[&farm.owner]);
    call.arg(mine);
    let owner = link
        .run(&SCRIPTS.claim, call)
        .await
        .and_then(|owner| Ok(from_redis_value::<String>(owner)?));
    let owner = owner.map_err(|error| explain(link, &error))?;
    if owner == mine {
        return Ok(());
    }
    Err(StartError::TwoFarms { mine: mine.to_owned(), owner, key: farm.owner.clone() })
}

pub(super) async fn expect(
    link: &Link,
    farm: &FarmKeys,
    patience: Duration,
) -> Result<(), StartError> {
    let deadline = Instant::now() + patience;
    loop {
        let call = SCRIPTS.mark.call(&[&farm.owner]);
        let idle =
            link.run(&SCRIPTS.mark, call).await.and_then(|idle| Ok(from_redis_value::<i64>(idle)?));
        let refusal = match idle.map_err(|error| explain(link, &error)) {
            Ok(0..=FORSAKEN) => return Ok(()),
            Ok(_) => StartError::OtherRedis { address: link.address(), farm: farm.farm.clone() },
            Err(error) if error.retryable() => error,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(refusal);
        }
        sleep(LOOK).await;
    }
}

fn explain(link: &Link, error: &RedisError) -> StartError {
    let (address, reason) = (link.address(), error.to_string());
    // The client gives only the text of TLS's error.
    if let Some((_, flaw)) = reason.split_once("invalid peer certificate: ") {
        return StartError::Untrusted { address, reason: flaw.to_owned() };
    }
    if DENIED_IN_SCRIPT.iter().any(|words| reason.contains(words)) {
        return StartError::Refused { address, reason };
    }
    // Waiting does not help with these.
    if ["DB index is out of range", "cluster support disabled"]
        .iter()
        .any(|words| reason.contains(words))
    {
        return StartError::Url(reason);
    }
    match (error.kind(), error.code()) {
        (ErrorKind::MasterNameNotFoundBySentinel, _) => StartError::NotReady {
            address,
            reason: "the Sentinels name no master that can be reached; check its name, or wait for the failover's end"
                .to_owned(),
        },
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
            StartError::Refused { address, reason }
        }
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => StartError::NotReady { address, reason },
        _ => StartError::Unreachable { address, reason },
    }
}
