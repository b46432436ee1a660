//! What members ask of a coordinator, and the gRPC service of it.

use std::sync::Arc;

use async_trait::async_trait;
use darkroom_proto::{
    bounds::MAX_MESSAGE_BYTES,
    v1::{self, members_server::MembersServer},
};
use tonic::{Request, Response, Status, codec::CompressionEncoding};

use crate::{
    Answer, Caller,
    grpc::{answer, known},
};

/// The calls of `darkroom.v1.Members`.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Joins the farm, or renews a worker's keys.
    async fn join(&self, caller: &Caller, request: v1::JoinRequest) -> Answer<v1::JoinResponse>;
}

/// The members' service. Serve it behind a [`CallerLayer`](crate::CallerLayer).
#[must_use]
pub fn service(members: Arc<dyn Members>) -> MembersServer<MembersService> {
    MembersServer::new(MembersService { members })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
}

/// tonic's service over the calls.
#[derive(Clone)]
pub struct MembersService {
    members: Arc<dyn Members>,
}

#[tonic::async_trait]
impl v1::members_server::Members for MembersService {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let (caller, request) = known(request)?;
        answer(self.members.join(&caller, request).await)
    }
}
