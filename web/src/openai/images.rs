//! `POST /v1/images/generations` and `POST /v1/images/edits`.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use darkroom_core::error::Code;
use darkroom_farm_api::authority;
use darkroom_runtime::server::BodyMemory;

use super::{
    answer::Client,
    events,
    fields::Fields,
    fingerprint::fingerprint,
    form::{self, Inputs},
    ledger::Sender,
    models::Models,
    order::{Endpoint, Order},
    placement::place,
    refusals::Visit,
    spec,
};
use crate::{entry::Entry, problem::Refusal, site::Site};

/// Makes pictures from a text.
pub(super) async fn generate(
    State(site): State<Arc<Site>>,
    Extension(visit): Extension<Visit>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let request = PictureRequest::of(site, visit, &entry)?;
    let fields = form::read_json(entry).await?;
    request.serve(fields, Inputs::default(), Endpoint::Generations).await
}

/// Makes pictures from a picture, or anew where a mask is, and a text.
pub(super) async fn edit(
    State(site): State<Arc<Site>>,
    Extension(visit): Extension<Visit>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let request = PictureRequest::of(site, visit, &entry)?;
    let (fields, inputs) = form::read(&request.client.site, entry).await?;
    request.serve(fields, inputs, Endpoint::Edits).await
}

/// One request for pictures.
struct PictureRequest {
    client: Client,
    visit: Visit,
    /// What the body counts for while it is read.
    memory: Option<BodyMemory>,
}

impl PictureRequest {
    fn of(site: Arc<Site>, visit: Visit, entry: &Entry) -> Result<Self, Refusal> {
        entry.no_query()?;
        let client = Client {
            site,
            caller: entry.caller.clone(),
            standing: entry.standing.clone(),
            authority: authority(&entry.parts.uri, entry.headers()).unwrap_or_default(),
        };
        let memory = entry.parts.extensions.get::<BodyMemory>().cloned();
        Ok(Self { client, visit, memory })
    }

    async fn serve(
        self,
        fields: Fields,
        inputs: Inputs,
        endpoint: Endpoint,
    ) -> Result<Response, Refusal> {
        let Self { client, visit, memory } = self;
        // The pictures may take long, and the body has been read.
        if let Some(memory) = memory {
            memory.release();
        }
        let order = Order::read(fields, endpoint)?;
        let (site, caller) = (&client.site, &client.caller);
        let models = Models::of(site, caller).await?;
        let cascade = models.named(&order.model)?;
        let fingerprint = fingerprint(caller, &order, &inputs);
        let request = spec::job(&order, &inputs, cascade, &fingerprint);
        let sender = Sender { fingerprint, caller: caller.clone() };
        let ledger = &site.openai.ledger;
        let (seat, mut progress) = place((ledger, &client), &visit, sender, request).await?;
        if order.streams {
            return Ok(events::streamed(client, order, progress, seat));
        }
        match progress.finish().await {
            Ok(()) => client.answer(&order, progress, seat).await,
            Err(error) => {
                // The farm's own troubles pass, and the retry finds the job.
                if error.code != Code::Unavailable {
                    seat.answered();
                }
                Err(error.into())
            }
        }
    }
}
