//! What handlers use.

use std::sync::Arc;

use darkroom_farm_api::{AdminCalls, CallerLayer, Calls, Seals};
use serde::{Deserialize, Serialize};

use crate::openai::Desk;

/// How the page shows money.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Display {
    /// What one hour of one device costs. Absent: the page shows no money.
    pub price_per_device_hour: Option<f64>,
    /// The currency, as it is written before an amount.
    pub currency: Option<String>,
}

/// What handlers use.
pub(crate) struct Site {
    pub(crate) farm: Arc<dyn Calls>,
    pub(crate) admin: Arc<dyn AdminCalls>,
    pub(crate) callers: CallerLayer,
    pub(crate) seals: Arc<dyn Seals>,
    pub(crate) tls: bool,
    pub(crate) openai: Desk,
    pub(crate) display: Display,
}
