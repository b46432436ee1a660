//! Settings that a file gives a single prompt: an object in JSON, columns `settings.…` in a table.
//!
//! Names are those of a job's settings. Whether the values fit the cascade only the farm knows.

use std::str::FromStr;

use darkroom_core::{
    output::OutputRequest,
    settings::{SettingsRequest, StageRequest},
};

use crate::{error::shown, json::sentence};

/// What an object of settings may look like.
pub(crate) const ACCEPTED: &str = r#"accepted: {"size": 256, "width": 256, "height": 128, "output": {"format": "jpeg", "quality": 90}, "stages": [{"stage": "base", "steps": 20}]}, all optional, or null"#;

/// What every column of settings begins with.
const PREFIX: &str = "settings.";

/// What a stage's column may be called in the end.
const KEYS: [&str; 12] = [
    "sampler",
    "steps",
    "preset",
    "timesteps",
    "spacing",
    "eta",
    "guidance_scale",
    "guidance_schedule",
    "thresholding",
    "noise_level",
    "strength",
    "cache_interval",
];

/// Reads an object.
pub(crate) fn object(json: &str) -> Result<SettingsRequest, String> {
    let settings: SettingsRequest = serde_json::from_str(json)
        .map_err(|error| format!("settings cannot be read: {}; {ACCEPTED}", sentence(&error)))?;
    let given = [
        ("start", &settings.start),
        ("start_stage", &settings.start_stage),
        ("fit", &settings.fit),
    ];
    if let Some((key, value)) = given.into_iter().find(|(_, value)| !value.is_empty()) {
        let value = shown(value);
        return Err(format!(
            "settings.{key} is {value}; accepted: none, because all images of a job start alike"
        ));
    }
    Ok(settings)
}

/// Which setting a column holds.
#[derive(Debug)]
pub(crate) enum Setting {
    Size,
    Width,
    Height,
    Output,
    Stage { stage: String, key: &'static str },
}

impl Setting {
    /// By the column's name in small letters; `None` for a column that holds no setting.
    pub(crate) fn of_column(name: &str) -> Option<Result<Self, String>> {
        let rest = name.strip_prefix(PREFIX)?;
        Some(match (rest, rest.split_once('.')) {
            ("size", _) => Ok(Self::Size),
            ("width", _) => Ok(Self::Width),
            ("height", _) => Ok(Self::Height),
            ("output", _) => Ok(Self::Output),
            (_, Some((stage, key))) if !stage.is_empty() => {
                let key = KEYS.into_iter().find(|known| *known == key);
                key.map(|key| Self::Stage { stage: stage.to_owned(), key })
                    .ok_or_else(|| unknown(name))
            }
            _ => Err(unknown(name)),
        })
    }

    /// Takes a cell over.
    pub(crate) fn set(&self, settings: &mut SettingsRequest, cell: &str) -> Result<(), String> {
        match self {
            Self::Size => settings.size = number("settings.size", cell)?,
            Self::Width => settings.width = number("settings.width", cell)?,
            Self::Height => settings.height = number("settings.height", cell)?,
            Self::Output => {
                let output = OutputRequest::parse("settings.output", cell.trim());
                settings.output = output.map_err(|error| error.message)?;
            }
            Self::Stage { stage, key } => {
                let name = format!("{PREFIX}{stage}.{key}");
                return set_key(stage_of(settings, stage), key, &name, cell.trim());
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    format!(
        "the column {} is no setting; accepted: settings.size, settings.width, settings.height, settings.output, settings.STAGE.KEY with a \
         KEY of {}; --label-columns keeps it as a label",
        shown(name),
        KEYS.join(", ")
    )
}

/// The entry of a stage, which may be new.
fn stage_of<'a>(settings: &'a mut SettingsRequest, stage: &str) -> &'a mut StageRequest {
    let known = settings.stages.iter().position(|one| one.stage == stage);
    let place = known.unwrap_or_else(|| {
        settings.stages.push(StageRequest { stage: stage.to_owned(), ..StageRequest::default() });
        settings.stages.len() - 1
    });
    &mut settings.stages[place]
}

fn set_key(stage: &mut StageRequest, key: &str, name: &str, cell: &str) -> Result<(), String> {
    let text = || Some(cell.to_owned());
    match key {
        "sampler" => stage.sampler = text(),
        "preset" => stage.preset = text(),
        "spacing" => stage.spacing = text(),
        "guidance_schedule" => stage.guidance_schedule = text(),
        "thresholding" => stage.thresholding = text(),
        "steps" => stage.steps = Some(number(name, cell)?),
        "noise_level" => stage.noise_level = Some(number(name, cell)?),
        "cache_interval" => stage.cache_interval = Some(number(name, cell)?),
        "eta" => stage.eta = Some(fraction(name, cell)?),
        "guidance_scale" => stage.guidance_scale = Some(fraction(name, cell)?),
        "strength" => stage.strength = Some(fraction(name, cell)?),
        _ => {
            let separates = |character: char| character == ',' || character.is_whitespace();
            let steps = cell.split(separates).filter(|step| !step.is_empty());
            stage.timesteps = steps.map(|step| number(name, step)).collect::<Result<_, _>>()?;
        }
    }
    Ok(())
}

/// A number in digits alone.
fn number(name: &str, cell: &str) -> Result<u32, String> {
    let digits = cell.trim();
    let number =
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.ok_or_else(|| {
        format!("{name} is {}; accepted: a whole number, or an empty cell", shown(cell))
    })
}

/// A number with a fraction perhaps.
fn fraction(name: &str, cell: &str) -> Result<f64, String> {
    let plain = cell.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    f64::from_str(cell).ok().filter(|_| plain).ok_or_else(|| {
        format!("{name} is {}; accepted: a number like 7.5, or an empty cell", shown(cell))
    })
}
