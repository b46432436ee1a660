//! The calls of service Admin: keys, tenants and the audit.

use darkroom_core::error::Code;
use darkroom_proto::v1::{self, admin_client::AdminClient};
use darkroom_runtime::peer::{self, Peers};
use tonic::{Request, Response, Status, codec::CompressionEncoding};

use super::{CALL, Client, GRACE, MAX_MESSAGE, within};
use crate::failure::Result;

impl Client {
    /// Makes a key.
    pub(crate) async fn create_key(
        &self,
        request: v1::CreateKeyRequest,
    ) -> Result<v1::CreateKeyResponse> {
        self.once(request, async |mut admin, request| admin.create_key(request).await).await
    }

    /// Makes a key in place of another.
    pub(crate) async fn rotate_key(
        &self,
        request: v1::RotateKeyRequest,
    ) -> Result<v1::RotateKeyResponse> {
        self.once(request, async |mut admin, request| admin.rotate_key(request).await).await
    }

    /// A page of keys.
    pub(crate) async fn keys(&self, request: v1::ListKeysRequest) -> Result<v1::ListKeysResponse> {
        self.ask(request, async |mut admin, request| admin.list_keys(request).await).await
    }

    /// Ends a key.
    pub(crate) async fn revoke_key(&self, id: &str) -> Result<v1::Key> {
        let request = v1::RevokeKeyRequest { id: id.to_owned() };
        self.ask(request, async |mut admin, request| admin.revoke_key(request).await).await
    }

    /// Adds or changes a tenant.
    pub(crate) async fn set_tenant(&self, request: v1::SetTenantRequest) -> Result<v1::Tenant> {
        self.ask(request, async |mut admin, request| admin.set_tenant(request).await).await
    }

    /// One tenant.
    pub(crate) async fn tenant(&self, name: &str) -> Result<v1::Tenant> {
        let request = v1::GetTenantRequest { name: name.to_owned() };
        self.ask(request, async |mut admin, request| admin.get_tenant(request).await).await
    }

    /// A page of tenants.
    pub(crate) async fn tenants(
        &self,
        request: v1::ListTenantsRequest,
    ) -> Result<v1::ListTenantsResponse> {
        self.ask(request, async |mut admin, request| admin.list_tenants(request).await).await
    }

    /// Sets how long something is kept.
    pub(crate) async fn set_retention(
        &self,
        request: v1::SetRetentionRequest,
    ) -> Result<v1::RetentionPolicy> {
        self.ask(request, async |mut admin, request| admin.set_retention(request).await).await
    }

    /// How long what is kept.
    pub(crate) async fn retention(&self, tenant: &str) -> Result<v1::GetRetentionResponse> {
        let request = v1::GetRetentionRequest { tenant: tenant.to_owned() };
        self.ask(request, async |mut admin, request| admin.get_retention(request).await).await
    }

    /// Has the cleaner work now.
    pub(crate) async fn clean(
        &self,
        request: v1::CleanFarmRequest,
    ) -> Result<v1::CleanFarmResponse> {
        self.ask(request, async |mut admin, request| admin.clean_farm(request).await).await
    }

    /// A page of the audit.
    pub(crate) async fn audit(
        &self,
        request: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse> {
        self.ask(request, async |mut admin, request| admin.list_audit(request).await).await
    }

    /// A call that can be repeated.
    async fn ask<Q: Clone, A>(
        &self,
        request: Q,
        send: impl AsyncFn(AdminClient<Peers>, Request<Q>) -> std::result::Result<Response<A>, Status>,
    ) -> Result<A> {
        self.retrying(CALL, async || send(self.admin(), timed(request.clone())).await).await
    }

    /// A call that makes a key. A repeat would make another one.
    async fn once<Q, A>(
        &self,
        request: Q,
        send: impl AsyncFn(AdminClient<Peers>, Request<Q>) -> std::result::Result<Response<A>, Status>,
    ) -> Result<A> {
        match within(CALL + GRACE, send(self.admin(), timed(request))).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                let mut failure = self.failure(&status);
                if peer::passes(&status) || failure.code == Code::DeadlineExceeded {
                    failure.message += "; the key may have been made: `darkroom key list` shows it, without its secret";
                }
                Err(failure)
            }
        }
    }

    fn admin(&self) -> AdminClient<Peers> {
        AdminClient::new(self.peers.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_MESSAGE)
    }
}

fn timed<Q>(request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.set_timeout(CALL);
    request
}
