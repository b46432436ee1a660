//! Flags of every program that serves the site.

use clap::Args;
use darkroom_core::shown::shown;
use serde::Deserialize;

use crate::{
    gate::Hosts,
    openai::aliases::{Aliases, ModelAlias},
    public_url::PublicUrl,
    site::Display,
};

/// How the farm is reached and shown over HTTP.
#[derive(Clone, Debug, Default, Args)]
pub struct SiteSettings {
    /// A name under which browsers and programs reach this farm over HTTP; may be repeated. IP
    /// addresses, localhost and names that end with .localhost always count. Requests for other names
    /// are refused, because a page of a stranger can send them
    #[arg(long = "http-host", env = "DARKROOM_HTTP_HOST", value_name = "NAME",
          value_delimiter = ',', help_heading = HEADING)]
    pub http_hosts: Vec<String>,
    /// The address by which browsers reach this farm through a proxy that ends TLS, like
    /// https://farm.example.com: its name counts as one of --http-host, links begin with it, and
    /// sessions are kept for TLS alone
    #[allow(rustdoc::bare_urls, reason = "this is also the text of --help")]
    #[arg(long, env = "DARKROOM_PUBLIC_URL", value_name = "URL", help_heading = HEADING)]
    pub public_url: Option<PublicUrl>,
    /// What an hour of one device costs, as CURRENCY AMOUNT, like "EUR 2.50": the web page then shows
    /// the cost of jobs
    #[arg(long, env = "DARKROOM_DEVICE_HOUR_PRICE", value_name = "PRICE", value_parser = price,
          help_heading = HEADING)]
    pub device_hour_price: Option<Price>,
    /// A name by which OpenAI's API knows a cascade, as NAME=CASCADE; may be repeated. gpt-image-1
    /// and dall-e-3 mean the default cascade, unless NAME= removes them
    #[arg(long = "model-alias", env = "DARKROOM_MODEL_ALIAS", value_name = "NAME=CASCADE",
          value_delimiter = ',', help_heading = HEADING)]
    pub model_aliases: Vec<ModelAlias>,
}

/// The heading of the help for these flags.
const HEADING: &str = "HTTP and the web page";

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Price {
    currency: String,
    amount: f64,
}

impl TryFrom<String> for Price {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        price(&text)
    }
}

fn price(text: &str) -> Result<Price, String> {
    let wrong =
        || format!("{:?} is not a price; accepted: CURRENCY AMOUNT, like EUR 2.50", shown(text));
    let (currency, amount) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let amount: f64 = amount.trim().parse().map_err(|_| wrong())?;
    let is_name = (1..=8).contains(&currency.chars().count())
        && currency.chars().all(|letter| !letter.is_whitespace() && !letter.is_control());
    if !is_name || !amount.is_finite() || amount < 0.0 {
        return Err(wrong());
    }
    Ok(Price { currency: currency.to_owned(), amount })
}

impl SiteSettings {
    /// The names that count.
    #[must_use]
    pub(crate) fn hosts(&self) -> Hosts {
        let named = self.http_hosts.iter().map(|name| name.trim().to_owned());
        Hosts::new(named, self.public_url.as_ref())
    }

    /// The names by which OpenAI's API knows cascades.
    #[must_use]
    pub(crate) fn aliases(&self) -> Aliases {
        Aliases::with(&self.model_aliases)
    }

    /// How money is shown.
    #[must_use]
    pub(crate) fn display(&self) -> Display {
        let price = self.device_hour_price.as_ref();
        Display {
            price_per_device_hour: price.map(|price| price.amount),
            currency: price.map(|price| price.currency.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_a_currency_and_an_amount() {
        let read = |text| price(text).map(|price| (price.currency, price.amount));
        assert_eq!(read("EUR 2.50"), Ok(("EUR".into(), 2.5)));
        assert_eq!(read(" € 0"), Ok(("€".into(), 0.0)));
        for wrong in ["", "2.50", "EUR", "EUR -1", "EUR inf", "EUR NaN", "EUR 1 2", "MUCHMONEY 1"] {
            let said = price(wrong).expect_err(wrong);
            assert!(said.contains("accepted: CURRENCY AMOUNT"), "{said}");
        }
    }
}
