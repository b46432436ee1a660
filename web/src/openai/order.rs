//! A request for pictures with every field read and every default filled in. Two requests that mean
//! the same are equal, however they were written.

use darkroom_core::{
    error::UserError,
    label::{MAX_LABEL_VALUE, is_unprintable},
    prompt::{MAX_CHARACTERS, check_prompt, check_text, is_blank},
};
use darkroom_farm_api::Answer;
use serde::Serialize;

use super::{
    fields::{Fields, wrong},
    quality::Quality,
    size::Size,
};

/// Most pictures of a request.
const MOST: u32 = 10;
/// Most previews of a streamed answer.
const MOST_PARTIALS: u32 = 3;
/// The parameters of both routes.
const PARAMETERS: [&str; 20] = [
    "prompt",
    "model",
    "n",
    "size",
    "quality",
    "output_format",
    "output_compression",
    "response_format",
    "user",
    "safety_identifier",
    "stream",
    "partial_images",
    "seed",
    "negative_prompt",
    "steps",
    "guidance",
    "background",
    "moderation",
    "style",
    "input_fidelity",
];
/// What the route for edits takes beside them.
const FILES: [&str; 2] = ["image", "mask"];

/// Which route a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Endpoint {
    Generations,
    Edits,
}

impl Endpoint {
    /// The beginning of its events' names.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Generations => "image_generation",
            Self::Edits => "image_edit",
        }
    }

    /// The names of what it takes.
    fn parameters(self) -> Vec<&'static str> {
        let edits = self == Self::Edits;
        let own = PARAMETERS.iter().filter(|name| edits || **name != "input_fidelity");
        own.chain(FILES.iter().filter(|_| edits)).copied().collect()
    }
}

/// The file format of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Format {
    Png,
    Jpeg,
    Webp,
}

impl Format {
    const WORDS: [(&str, Self); 3] =
        [("png", Self::Png), ("jpeg", Self::Jpeg), ("webp", Self::Webp)];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }
}

/// How the answer has the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Delivery {
    /// In it, in base64.
    Inline,
    /// As links.
    Links,
}

/// A request for pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Order {
    pub(super) endpoint: Endpoint,
    pub(super) prompt: String,
    /// Empty: none.
    pub(super) negative: String,
    /// Empty: the farm's default cascade.
    pub(super) model: String,
    pub(super) pictures: u32,
    pub(super) size: Size,
    pub(super) quality: Quality,
    pub(super) format: Format,
    /// For JPEG: 1 to 100.
    pub(super) jpeg_quality: Option<u32>,
    pub(super) delivery: Delivery,
    /// Who the client's own user is; empty: not said.
    pub(super) user: String,
    pub(super) streams: bool,
    pub(super) partials: u32,
    pub(super) seed: Option<u64>,
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
}

impl Order {
    /// Reads the fields of a request, all of them.
    pub(super) fn read(fields: Fields, endpoint: Endpoint) -> Answer<Self> {
        Self::read_for(fields, endpoint, Delivery::Inline)
    }

    /// The same, with another default for how the answer has the pictures.
    pub(super) fn read_for(
        mut fields: Fields,
        endpoint: Endpoint,
        usual: Delivery,
    ) -> Answer<Self> {
        let format = fields.word("output_format", &Format::WORDS)?.unwrap_or(Format::Png);
        // Of the lossless formats, the file is as small as it gets without being slow.
        let compression = fields.whole("output_compression", 0..=100)?;
        let jpeg_quality = compression.filter(|_| format == Format::Jpeg).map(|level| level.max(1));
        let delivery = [("b64_json", Delivery::Inline), ("url", Delivery::Links)];
        let order = Self {
            endpoint,
            prompt: prompt(&mut fields)?,
            negative: negative_prompt(&mut fields)?,
            model: fields.text("model")?.unwrap_or_default(),
            pictures: fields.whole("n", 1..=MOST)?.unwrap_or(1),
            size: size(&mut fields)?,
            quality: fields.word("quality", &Quality::WORDS)?.unwrap_or_default(),
            format,
            jpeg_quality,
            delivery: fields.word("response_format", &delivery)?.unwrap_or(usual),
            user: user(&mut fields)?,
            streams: fields.flag("stream")?.unwrap_or(false),
            partials: fields.whole("partial_images", 0..=MOST_PARTIALS)?.unwrap_or(0),
            seed: fields.seed("seed")?,
            steps: fields.whole("steps", 1..=1000)?,
            guidance: fields.number("guidance", 1.0..=100.0)?,
        };
        ignore(&mut fields, endpoint)?;
        fields.finish(&endpoint.parameters())?;
        order.check_stream()?;
        Ok(order)
    }

    fn check_stream(&self) -> Answer<()> {
        if !self.streams {
            return Ok(());
        }
        if self.pictures > 1 {
            let message = format!(
                "n is {} and stream is true, but events do not say which picture they show; \
                 accepted: n 1, or stream false",
                self.pictures
            );
            return Err(UserError::invalid("n", message));
        }
        if self.delivery == Delivery::Links {
            let message = "response_format is \"url\" and stream is true, but a stream sends the \
                           picture itself; accepted: b64_json, or stream false";
            return Err(UserError::invalid("response_format", message));
        }
        Ok(())
    }
}

fn prompt(fields: &mut Fields) -> Answer<String> {
    let prompt = fields.text("prompt")?.filter(|prompt| !is_blank(prompt)).ok_or_else(|| {
        let message = format!(
            "prompt is missing or blank; accepted: a text of 1 to {MAX_CHARACTERS} characters"
        );
        UserError::invalid("prompt", message)
    })?;
    check_prompt("prompt", &prompt)?;
    Ok(prompt)
}

fn negative_prompt(fields: &mut Fields) -> Answer<String> {
    let text = fields.text("negative_prompt")?.unwrap_or_default();
    check_text("negative_prompt", &text)?;
    Ok(text)
}

fn size(fields: &mut Fields) -> Answer<Size> {
    match fields.take("size") {
        None => Ok(Size::Auto),
        Some(serde_json::Value::String(text)) => Size::read(&text),
        Some(other) => {
            Err(wrong("size", &other, "WIDTHxHEIGHT in pixels, like \"1024x1024\", or \"auto\""))
        }
    }
}

/// The client's own user. The newer parameter counts before the older one.
fn user(fields: &mut Fields) -> Answer<String> {
    let older = fields.text("user")?.map(|user| ("user", user));
    let newer = fields.text("safety_identifier")?.map(|user| ("safety_identifier", user));
    let given = newer.filter(|(_, user)| !user.is_empty()).or(older);
    let Some((name, user)) = given else { return Ok(String::new()) };
    let characters = user.chars().count();
    if characters > MAX_LABEL_VALUE {
        let message =
            format!("{name} has {characters} characters; accepted: at most {MAX_LABEL_VALUE}");
        return Err(UserError::invalid(name, message));
    }
    if let Some(bad) = user.chars().find(|letter| is_unprintable(*letter)) {
        let message = format!(
            "{name} has U+{:04X}, which cannot be printed; accepted: printable characters",
            u32::from(bad)
        );
        return Err(UserError::invalid(name, message));
    }
    Ok(user)
}

/// Parameters that change nothing here. Values that would have to change something are refused.
fn ignore(fields: &mut Fields, endpoint: Endpoint) -> Answer<()> {
    fields.word("background", &[("auto", ()), ("opaque", ())])?;
    fields.word("moderation", &[("auto", ()), ("low", ())])?;
    fields.word("style", &[("vivid", ()), ("natural", ())])?;
    if endpoint == Endpoint::Edits {
        fields.word("input_fidelity", &[("low", ()), ("high", ())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
