//! What handlers use.

use std::sync::Arc;

use darkroom_farm_api::{AdminCalls, Batches, CallerLayer, Calls, Seals};
use serde::Serialize;

use crate::{
    openai::{Desk, batches::Bell},
    public_url::PublicUrl,
};

/// How the page shows money.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Display {
    /// What one hour of one device costs. Absent: the page shows no money.
    pub(crate) price_per_device_hour: Option<f64>,
    /// The currency, as it is written before an amount.
    pub(crate) currency: Option<String>,
}

/// What handlers use.
pub(crate) struct Site {
    pub(crate) farm: Arc<dyn Calls>,
    pub(crate) admin: Arc<dyn AdminCalls>,
    pub(crate) batches: Arc<dyn Batches>,
    /// Wakes this process's runner of batches.
    pub(crate) bell: Bell,
    pub(crate) callers: CallerLayer,
    pub(crate) seals: Arc<dyn Seals>,
    /// Whether browsers speak TLS with the farm, or with a proxy before it.
    pub(crate) tls: bool,
    /// The address by which browsers reach it, if that is not its own.
    pub(crate) public: Option<PublicUrl>,
    pub(crate) openai: Desk,
    pub(crate) display: Display,
}

impl Site {
    /// Where links begin, for whoever reaches the farm at this authority.
    pub(crate) fn origin(&self, authority: &str) -> String {
        match &self.public {
            Some(public) => public.origin().to_owned(),
            None if self.tls => format!("https://{authority}"),
            None => format!("http://{authority}"),
        }
    }
}
