//! A program that was built without TLS refuses to use it.

use std::{convert::Infallible, io, path::Path};

use darkroom_core::{error::UserError, shown::shown_path};
use tokio::net::TcpStream;

use super::{
    fault::Fault,
    stream::{ClientCertificate, Stream},
};

/// A server's TLS. There is none in this program.
#[derive(Clone, Debug)]
pub struct ServerTls(Infallible);

/// A client's TLS. There is none in this program.
#[derive(Clone, Debug)]
pub struct ClientTls(Infallible);

fn missing(setting: &str, what: &str) -> UserError {
    UserError::invalid(
        setting,
        format!(
            "{setting} {what}, and this program was built without TLS; build it with `cargo build`, or with \
             `cargo build -p darkroom-cli --features tls`"
        ),
    )
}

impl ServerTls {
    pub(super) fn open(certificate: &Path, _: &Path, _: Option<&Path>) -> Result<Self, UserError> {
        Err(missing("tls-cert", &format!("is {}", shown_path(certificate))))
    }

    pub(crate) async fn accept(
        &self,
        _: TcpStream,
    ) -> io::Result<(Stream, Option<ClientCertificate>)> {
        match self.0 {}
    }

    pub(crate) async fn watch(&self) {
        match self.0 {}
    }
}

impl ClientTls {
    pub(super) fn open(_: Option<&Path>, _: Option<(&Path, &Path)>) -> Result<Self, UserError> {
        Err(missing("farm", "begins with https://"))
    }

    pub(crate) async fn connect(&self, _: &str, _: TcpStream) -> Result<Stream, Fault> {
        match self.0 {}
    }
}
