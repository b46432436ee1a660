//! gRPC health and reflection for a process that does no other work over gRPC.

use darkroom_core::error::UserError;
use darkroom_proto::FILE_DESCRIPTOR_SET;
use darkroom_runtime::{
    server::{self, Health, Listen},
    tls::Privacy,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Serves `routes`, health and reflection on `listen` until `stop`. `services` are the names that
/// health knows.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_health(
    (listen, privacy): (&Listen, &Privacy),
    routes: Routes,
    services: &[&str],
    stop: CancellationToken,
) -> Result<(Health, JoinHandle<Result<(), server::Error>>), UserError> {
    let listener = server::listen(listen, privacy).await.map_err(|error| error.to_user())?;
    tracing::info!(address = %listener.address(), "listening");
    // A member has no record of keys to ask, so other machines get nothing that takes work.
    let routes = if listener.is_loopback() { routes } else { Routes::default() };
    let options = server::Options::new(FILE_DESCRIPTOR_SET, services);
    let (health, serving) =
        server::serve(listener, routes, options, stop).await.map_err(|error| error.to_user())?;
    Ok((health, tokio::spawn(serving)))
}

#[cfg(test)]
mod tests {
    use darkroom_proto::v1::{
        EncodeRequest, EncodeResponse,
        encoder_client::EncoderClient,
        encoder_server::{Encoder, EncoderServer},
    };
    use tonic::{Code, Request, Response, Status};

    use super::*;

    struct Answers;

    #[tonic::async_trait]
    impl Encoder for Answers {
        async fn encode(
            &self,
            _: Request<EncodeRequest>,
        ) -> Result<Response<EncodeResponse>, Status> {
            Ok(Response::new(EncodeResponse::default()))
        }
    }

    #[tokio::test]
    async fn other_machines_get_health_and_no_work() {
        for (listen, privacy, expected) in [
            ("127.0.0.1:0", Privacy::Loopback, None),
            ("0.0.0.0:0", Privacy::Plaintext, Some(Code::Unimplemented)),
        ] {
            let listener = server::listen(&listen.parse().expect("an address"), &privacy).await;
            let port = listener.expect("a free port").address().port();
            let address = listen.replace(":0", &format!(":{port}"));
            let listen = address.parse().expect("an address");
            let routes = Routes::new(EncoderServer::new(Answers));
            let services = ["darkroom.v1.Encoder"];
            let stop = CancellationToken::new();
            let served = serve_health((&listen, &privacy), routes, &services, stop.clone()).await;
            let (_health, serving) = served.expect("serves");
            let client = EncoderClient::connect(format!("http://127.0.0.1:{port}")).await;
            let answer = client.expect("connects").encode(EncodeRequest::default()).await;
            assert_eq!(answer.err().map(|status| status.code()), expected, "{address}");
            stop.cancel();
            serving.await.expect("joined").expect("ends");
        }
    }
}
