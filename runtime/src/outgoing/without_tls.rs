//! A program that was built without TLS does not send to `https://`.

use tokio::net::TcpStream;

use super::{error::Error, target::Target};

pub(super) async fn connect(target: &Target, _: TcpStream) -> Result<TcpStream, Error> {
    let why = "this program was built without TLS; build it with `--features tls`";
    Err(Error::Untrusted(target.shown(), why.to_owned()))
}
