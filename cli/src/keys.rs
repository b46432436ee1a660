//! `darkroom key`: makes, lists and ends keys.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use darkroom_core::{
    error::{Code, UserError},
    key::{Key, KeyId},
    shown::shown,
};
use darkroom_proto::{
    json::{self, Named},
    v1,
};
use darkroom_runtime::terminal::shown_path;
use prost_types::Timestamp;
use serde_json::json;

use crate::{
    args::{KeyCommand, KeyCreateArgs, KeyListArgs, KeyRotateArgs, Place},
    client::Pages,
    deadline,
    failure::{self, Result},
    farm, output,
    table::{none, table},
};

/// Entries of a page that is asked for.
pub(crate) const PAGE: u32 = 1000;

/// Runs one of the commands.
pub(crate) async fn run(command: KeyCommand, place: &Place, as_json: bool) -> Result<()> {
    match command {
        KeyCommand::Create(args) => create(args, place, as_json).await,
        KeyCommand::List(args) => list(&args, place, as_json).await,
        KeyCommand::Revoke(args) => {
            let id = key_id("id", &args.id)?;
            let key = farm::find(place)?.revoke_key(&id).await?;
            if as_json {
                return output::json(&json::Key::from(&key));
            }
            output::line(&format!("the key {} is revoked", shown(&key.id)))
        }
        KeyCommand::Rotate(args) => rotate(args, place, as_json).await,
    }
}

/// When a new key ends: so many seconds from now, or at a time; neither for `never`. Seconds count by
/// the farm's clock, because the one of this machine may be wrong.
fn end(text: &str) -> Result<(u64, Option<Timestamp>)> {
    match deadline::span(text) {
        _ if text == "never" => Ok((0, None)),
        Some(_) => Ok((deadline::whole_seconds("expires", text)?, None)),
        None => Ok((0, Some(deadline::future("expires", text)?))),
    }
}

async fn create(args: KeyCreateArgs, place: &Place, as_json: bool) -> Result<()> {
    let (expires_after_seconds, expires) = end(&args.expires)?;
    let request = v1::CreateKeyRequest {
        tenant: args.tenant.unwrap_or_default(),
        scopes: scopes(&args.scopes)?,
        label: args.label.unwrap_or_default(),
        expires_after_seconds,
        expires,
        certificate: args.certificate.unwrap_or_default(),
    };
    let client = farm::find(place)?;
    let out = args.out.map(NewFile::make).transpose()?;
    let answer = client.create_key(request).await;
    let answer = NewFile::or_remove(out.as_ref(), answer)?;
    let made = Made::of(answer.key, answer.secret)?;
    made.print(out, None, as_json)
}

async fn rotate(args: KeyRotateArgs, place: &Place, as_json: bool) -> Result<()> {
    let seconds = |field, text: &str| deadline::whole_seconds(field, text);
    let request = v1::RotateKeyRequest {
        id: key_id("id", &args.id)?,
        keep_seconds: seconds("keep", &args.keep)?,
        expires_after_seconds: args.expires.map_or(Ok(0), |text| seconds("expires", &text))?,
    };
    let client = farm::find(place)?;
    let out = args.out.map(NewFile::make).transpose()?;
    let answer = client.rotate_key(request).await;
    let answer = NewFile::or_remove(out.as_ref(), answer)?;
    let made = Made::of(answer.key, answer.secret)?;
    made.print(out, answer.old, as_json)
}

/// A new key. Its secret is empty where a certificate stands for it.
struct Made {
    key: v1::Key,
    secret: Option<Key>,
}

impl Made {
    fn of(key: Option<v1::Key>, secret: String) -> Result<Self> {
        let key = key.ok_or_else(|| nonsense("made a key but did not say which"))?;
        let secret = match secret.as_str() {
            "" if !key.certificate.is_empty() => None,
            // Not quoted.
            text => Some(text.parse().map_err(|_| nonsense("sent something that is no key"))?),
        };
        Ok(Self { key, secret })
    }

    /// Prints the key, or writes it to the file. Only this shows the secret.
    fn print(self, out: Option<NewFile>, old: Option<v1::Key>, as_json: bool) -> Result<()> {
        let id = shown(&self.key.id).into_owned();
        let written = match (&out, &self.secret) {
            (Some(file), Some(secret)) => {
                file.write(secret)?;
                Some(file.path.clone())
            }
            _ => None,
        };
        if as_json {
            let secret = self.secret.filter(|_| written.is_none()).map(|key| key.expose());
            let mut document = json!({"key": json::Key::from(&self.key)});
            if let Some(secret) = secret {
                document["secret"] = secret.into();
            }
            if let Some(old) = &old {
                document["old"] = json!(json::Key::from(old));
            }
            if let Some(path) = &written {
                document = output::with_path(document, "path", path);
            }
            return output::json(&document);
        }
        if let Some(old) = &old {
            output::note(&format!("the old key {} works until {}", old.id, time(&old.expires)));
        }
        match (written, self.secret) {
            (Some(path), _) => output::line(&format!("the key {id} is in {}", shown_path(&path))),
            (None, Some(secret)) => {
                output::line(&secret.expose())?;
                output::note(
                    "this key is shown only now; keep it in a file that only you can read, or give it to `darkroom login`",
                );
                Ok(())
            }
            (None, None) => output::line(&format!(
                "the key {id} stands for certificates of {}",
                shown(&self.key.certificate)
            )),
        }
    }
}

fn nonsense(what: &str) -> UserError {
    failure::unbelievable(format!("the farm {what}; ask its operator"))
}

/// A file that was made for a key, before there is one: a key that cannot be stored is lost.
struct NewFile {
    path: PathBuf,
    file: std::fs::File,
}

impl NewFile {
    fn make(path: PathBuf) -> Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(file) => Ok(Self { path, file }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let message =
                    format!("out is {}, which exists; accepted: a new file", shown_path(&path));
                let mut failure = UserError::new(Code::AlreadyExists, "FILE_EXISTS", message);
                failure.field = Some("out".to_owned());
                Err(failure)
            }
            Err(error) => Err(failure::file("out", "write", &path, &error)),
        }
    }

    /// Removes the file if there will be no key.
    fn or_remove<T>(made: Option<&Self>, answer: Result<T>) -> Result<T> {
        if let (Some(made), Err(_)) = (made, &answer) {
            let _ = std::fs::remove_file(&made.path);
        }
        answer
    }

    fn write(&self, key: &Key) -> Result<()> {
        let mut file = &self.file;
        writeln!(file, "{}", key.expose()).and_then(|()| file.sync_all()).map_err(|error| {
            let failure = failure::file("out", "write", Path::new(&self.path), &error);
            let message = format!(
                "{}; the key {} was made and is lost: end it with `darkroom key revoke {}`",
                failure.message,
                key.id(),
                key.id()
            );
            UserError { message, ..failure }
        })
    }
}

async fn list(args: &KeyListArgs, place: &Place, as_json: bool) -> Result<()> {
    let client = farm::find(place)?;
    let mut rows =
        vec![["ID", "TENANT", "SCOPES", "ENDS", "LAST USED", "LABEL"].map(str::to_owned)];
    let (mut pages, mut token) = (Pages::default(), String::new());
    loop {
        let request = v1::ListKeysRequest {
            page_size: PAGE,
            page_token: token,
            tenant: args.tenant.clone().unwrap_or_default(),
            ended: args.ended,
        };
        let page = client.keys(request).await?;
        for key in &page.keys {
            if as_json {
                output::json(&json::Key::from(key))?;
            } else {
                rows.push(row(key));
            }
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json { Ok(()) } else { table(&rows, 6) }
}

fn row(key: &v1::Key) -> [String; 6] {
    let scopes: Vec<_> = key.scopes().map(Named::name).collect();
    let ends = match (&key.revoked, &key.expires) {
        (Some(revoked), _) => format!("revoked {}", time(&Some(*revoked))),
        (None, expires) => expires.as_ref().map_or("never".to_owned(), ToString::to_string),
    };
    let label = match key.certificate.as_str() {
        "" => shown(&key.label).into_owned(),
        subject => {
            format!("{} (certificate {})", shown(&key.label), shown(subject)).trim().to_owned()
        }
    };
    [
        shown(&key.id).into_owned(),
        if key.tenant.is_empty() { none() } else { shown(&key.tenant).into_owned() },
        scopes.join(","),
        ends,
        time(&key.last_used),
        label,
    ]
}

/// The id of a key. Another text is not quoted, because it may be a whole key.
pub(crate) fn key_id(field: &str, text: &str) -> Result<String> {
    text.parse::<KeyId>().map(|id| id.to_string()).map_err(|_| {
        let message = format!(
            "{field} is not the id of a key; accepted: the 12 letters and digits between dk_ and the next _"
        );
        UserError::invalid(field, message)
    })
}

/// A time for people.
pub(crate) fn time(time: &Option<Timestamp>) -> String {
    time.as_ref().map_or_else(none, ToString::to_string)
}

fn scopes(names: &[String]) -> Result<Vec<i32>> {
    let all: Vec<_> = named::<v1::Scope>();
    names.iter().map(|name| find("scope", name, &all)).collect()
}

/// The values of an enum that people can name.
pub(crate) fn named<E: Named>() -> Vec<(i32, &'static str)> {
    let all = E::NAMES.iter().map(|(value, name)| ((*value).into(), *name));
    all.filter(|(number, _)| *number != 0).collect()
}

/// The value with this name.
///
/// # Errors
/// One sentence that lists the names.
pub(crate) fn find(field: &str, name: &str, all: &[(i32, &str)]) -> Result<i32> {
    let found = all.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
    found.ok_or_else(|| {
        let accepted: Vec<_> = all.iter().map(|(_, name)| *name).collect();
        let message = format!("{field} is {name:?}; accepted: {}", accepted.join(", "));
        UserError::invalid(field, message)
    })
}
