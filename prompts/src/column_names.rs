//! Which names of columns and keys mean a prompt, and which may have been meant as a field.

/// Names of columns that certainly hold prompts.
pub(crate) const PROMPT_COLUMNS: [&str; 5] = ["prompt", "prompts", "caption", "captions", "text"];
/// Names of columns and keys that are fields in other tools, but labels here.
const LIKE_FIELDS: [(&str, &str); 12] = [
    ("negative_prompt", "negative"),
    ("negative prompt", "negative"),
    ("negativeprompt", "negative"),
    ("neg_prompt", "negative"),
    ("num_images", "images"),
    ("n", "images"),
    ("init_image", "image"),
    ("image_path", "image"),
    ("input_image", "image"),
    ("mask_image", "mask"),
    ("mask_path", "mask"),
    ("id", "custom_id"),
];

/// The field that a label may have been meant as.
pub(crate) fn like_field(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    LIKE_FIELDS.iter().find(|(like, _)| *like == name).map(|(_, field)| *field)
}

/// Whether a column of this name certainly holds prompts.
pub(crate) fn is_prompt_column(name: &str) -> bool {
    PROMPT_COLUMNS.contains(&name.trim().trim_matches('"').trim().to_lowercase().as_str())
}
