//! The key that a client shows to a farm: where it comes from, and where it may be sent.
//!
//! The first of these that is there is used:
//!
//! 1. the file that `--key-file` or `DARKROOM_KEY_FILE` names;
//! 2. the variable `DARKROOM_KEY`, which has the key itself;
//! 3. for a farm that was found by its state folder, the key in that folder ([`StateKey`]);
//! 4. the key that `darkroom login` stored for the farm's address ([`Logins`]).
//!
//! No flag has a key, because everybody on a machine can read the command lines of its processes.
//! A key goes to another machine over TLS, and in plain text only with `--key-in-plaintext`. No log
//! shows it, and no error does. This module knows no service.

mod file;
mod logins;
mod refusal;
mod state_key;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    shown::shown_path,
};
use http::HeaderValue;

use self::file::ACCEPTED;
pub(crate) use self::refusal::advise;
pub use self::{logins::Logins, refusal::Ending, state_key::StateKey};
use crate::peer::{Address, Addresses};

/// The variable that holds a key.
const VARIABLE: &str = "DARKROOM_KEY";

/// Which key a client shows. Flags of every program that calls a farm.
#[derive(Clone, Debug, Default, Args)]
pub struct KeySettings {
    /// File with the key to show to the farm, readable by you alone. Without it, the key is the
    /// value of DARKROOM_KEY, or that of the farm in --state, or the one that `darkroom login`
    /// stored for the farm's address
    #[arg(
        long,
        global = true,
        env = "DARKROOM_KEY_FILE",
        value_name = "FILE",
        help_heading = HEADING
    )]
    pub key_file: Option<PathBuf>,
    /// Send the key even in plain text to another machine. Everybody between can read it there
    #[arg(
        long,
        global = true,
        env = "DARKROOM_KEY_IN_PLAINTEXT",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = HEADING
    )]
    pub key_in_plaintext: bool,
    /// The value of the variable.
    #[arg(skip = Given::of_environment())]
    pub given: Given,
}

/// The heading of the help for these flags.
const HEADING: &str = "Keys";

/// The value of `DARKROOM_KEY`, which is never shown.
#[derive(Clone, Default)]
pub struct Given(Option<OsString>);

impl Given {
    /// That of this process. An empty one counts as unset.
    #[must_use]
    pub fn of_environment() -> Self {
        Self(std::env::var_os(VARIABLE).filter(|value| !value.is_empty()))
    }

    fn read(&self) -> Result<Option<Credential>, UserError> {
        let Some(value) = &self.0 else { return Ok(None) };
        let key = value.to_str().and_then(|text| text.trim().parse().ok());
        let key = key.ok_or_else(|| {
            UserError::invalid("key", format!("{VARIABLE} has a value that is no key; {ACCEPTED}"))
        })?;
        Ok(Some(Credential { key, source: Source::Variable }))
    }
}

impl From<OsString> for Given {
    fn from(value: OsString) -> Self {
        Self(Some(value))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Given(…)" } else { "Given(none)" })
    }
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file of `--key-file`.
    File(PathBuf),
    /// The variable `DARKROOM_KEY`.
    Variable,
    /// The state folder of the farm itself.
    State(PathBuf),
    /// `darkroom login`.
    Login,
    /// The farm in this process.
    Own,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", shown_path(path)),
            Self::Variable => f.write_str(VARIABLE),
            Self::State(folder) => write!(f, "the state folder {}", shown_path(folder)),
            Self::Login => f.write_str("`darkroom login`"),
            Self::Own => f.write_str("this farm"),
        }
    }
}

/// A key, and where it comes from.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The key.
    pub key: Key,
    /// Where it comes from.
    pub source: Source,
}

impl Credential {
    /// The value of the header `authorization`. Logs show it as `Sensitive`.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let text = format!("Bearer {}", self.key.expose());
        #[expect(clippy::expect_used, reason = "a key has letters, digits and _ alone")]
        let mut value = HeaderValue::from_str(&text).expect("a key is ASCII");
        value.set_sensitive(true);
        value
    }
}

/// Where the farm that is called was found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// By its address.
    Named,
    /// By its state folder, on this machine.
    State(&'a Path),
}

/// The keys for a farm's addresses.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Each address that gets one.
    keys: Vec<(Address, Credential)>,
    warning: Option<String>,
    tell: Option<fn(&Ending)>,
}

impl KeySettings {
    /// Finds the key for each of these addresses, in the order above.
    ///
    /// # Errors
    /// One sentence for what is no key, for a file that cannot be read, and for a key that would be
    /// sent to another machine in plain text. None of them has the secret.
    pub fn open(&self, addresses: &Addresses, found: Found<'_>) -> Result<Credentials, UserError> {
        self.open_with(addresses, found, Logins::of_user().as_ref())
    }

    fn open_with(
        &self,
        addresses: &Addresses,
        found: Found<'_>,
        logins: Option<&Logins>,
    ) -> Result<Credentials, UserError> {
        let (one, warning) = self.for_all(found)?;
        let mut keys = Vec::new();
        for address in addresses.as_slice() {
            let credential = match (&one, logins) {
                (Some(one), _) => Some(one.clone()),
                (None, Some(logins)) => {
                    logins.find(address)?.map(|key| Credential { key, source: Source::Login })
                }
                (None, None) => None,
            };
            let Some(credential) = credential else { continue };
            self.allow(address, &credential)?;
            keys.push((address.clone(), credential));
        }
        Ok(Credentials { keys, warning, tell: None })
    }

    /// The key that is for every address, and a warning about its file.
    fn for_all(&self, found: Found<'_>) -> Result<(Option<Credential>, Option<String>), UserError> {
        if let Some(path) = &self.key_file {
            let (key, warning) = file::read(path)?;
            return Ok((Some(Credential { key, source: Source::File(path.clone()) }), warning));
        }
        if let Some(credential) = self.given.read()? {
            return Ok((Some(credential), None));
        }
        let Found::State(folder) = found else { return Ok((None, None)) };
        let key = StateKey::of(folder).read()?;
        let source = Source::State(folder.to_owned());
        Ok((key.map(|key| Credential { key, source }), None))
    }

    /// Refuses to send a key where others can read it on its way.
    ///
    /// # Errors
    /// One sentence with the address that is plain text.
    pub fn allow(&self, address: &Address, credential: &Credential) -> Result<(), UserError> {
        // A farm that was found by its folder may listen for other machines too.
        let found = matches!(credential.source, Source::State(_)) && address.is_this_machines();
        let here = address.is_here() || found;
        if address.tls || here || self.key_in_plaintext {
            return Ok(());
        }
        Err(UserError {
            field: Some("farm".to_owned()),
            ..UserError::new(
                Code::InvalidArgument,
                "KEY_IN_PLAINTEXT",
                format!(
                    "farm is {address}, which is plain text, so anybody on the way could read the key from {}; \
                     write https://{address}, or set key-in-plaintext to send it anyway",
                    credential.source
                ),
            )
        })
    }
}

impl Credentials {
    /// For a farm that is asked without a key.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// This one for each of a farm's addresses, wherever they are.
    #[must_use]
    pub fn own(addresses: &Addresses, credential: &Credential) -> Self {
        let keys = addresses.as_slice().iter().map(|address| (address.clone(), credential.clone()));
        Self { keys: keys.collect(), ..Self::none() }
    }

    /// The same. Where a key ends soon, `tell` is called with the first answer that says so.
    #[must_use]
    pub fn telling(self, tell: fn(&Ending)) -> Self {
        Self { tell: Some(tell), ..self }
    }

    /// Who is told of the end of a key.
    pub(crate) fn tell(&self) -> Option<fn(&Ending)> {
        self.tell
    }

    /// What to tell the user of the file that the key comes from.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// That for an address.
    #[must_use]
    pub fn of(&self, address: &Address) -> Option<&Credential> {
        self.keys.iter().find(|(other, _)| other == address).map(|(_, credential)| credential)
    }
}

#[cfg(test)]
mod tests;
