//! The calls about webhooks.

use darkroom_core::{error::Code, webhook::WebhookId};
use darkroom_proto::v1;
use darkroom_runtime::peer;
use tonic::Request;

use super::{CALL, Client, GRACE, within};
use crate::failure::Result;

impl Client {
    /// Creates a webhook. It is not retried, because a retry could create a second one.
    pub(crate) async fn create_webhook(
        &self,
        request: v1::CreateWebhookRequest,
    ) -> Result<v1::CreateWebhookResponse> {
        let mut request = Request::new(request);
        request.set_timeout(CALL);
        match within(CALL + GRACE, self.farm.clone().create_webhook(request)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                let mut failure = self.failure(&status);
                if peer::passes(&status) || failure.code == Code::DeadlineExceeded {
                    failure.message += "; the webhook may have been made: `darkroom webhook list` \
                                        shows it, without its secret";
                }
                Err(failure)
            }
        }
    }

    /// A page of webhooks.
    pub(crate) async fn webhooks(
        &self,
        request: v1::ListWebhooksRequest,
    ) -> Result<v1::ListWebhooksResponse> {
        self.call(request, CALL, async |mut farm, request| farm.list_webhooks(request).await).await
    }

    /// Ends a webhook.
    pub(crate) async fn delete_webhook(&self, id: WebhookId) -> Result<v1::DeleteWebhookResponse> {
        let request = v1::DeleteWebhookRequest { id: id.to_string() };
        self.call(request, CALL, async |mut farm, request| farm.delete_webhook(request).await).await
    }
}
