//! Changes of JSON documents: values, keys, and the tree.

use mutatis::Rng;
use serde_json::{Map, Value};

use super::{
    bytes::{self, WRITTEN},
    material::{Material, once_in, pick},
};

/// Most nodes that are looked at.
const NODES: usize = 20_000;

/// Texts that mean something somewhere.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "\u{0}",
    "\u{1b}[2J",
    "a\nb",
    "\u{202e}x",
    "\u{200b}",
    "\u{e0041}",
    "\u{feff}",
    "\u{9b}",
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    "a\\b",
    "é狗🙂",
    "e\u{301}",
    "0",
    "-1",
    "18446744073709551616",
    "NaN",
    "null",
    "true",
    "<pad>",
    "%s%n{}\"'`",
];

/// Changes a document.
pub(super) fn document(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(input).ok()?;
    tree(rng, material, &mut value);
    written(rng, &value)
}

/// Changes a TOML document, as JSON.
pub(super) fn toml(rng: &mut Rng, material: &Material<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = toml::from_str(std::str::from_utf8(input).ok()?).ok()?;
    let inside = Material { others: &[], ..*material };
    tree(rng, &inside, &mut value);
    without_null(&mut value);
    toml::to_string(&value).ok().map(String::into_bytes)
}

fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(without_null);
        }
        Value::Object(entries) => {
            entries.retain(|_, entry| !entry.is_null());
            entries.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

fn written(rng: &mut Rng, value: &Value) -> Option<Vec<u8>> {
    let text = if once_in(rng, 8) {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let mut text = text.ok()?;
    // Numbers that JSON has, and no type here.
    if once_in(rng, 12) {
        let number = *pick(rng, &WRITTEN)?;
        text = text.replacen(":1", &format!(":{number}"), 1);
    }
    // The same key twice.
    if once_in(rng, 16)
        && let Some(comma) = text.find(",\"")
    {
        let first = text.get(1..comma).unwrap_or_default().to_owned();
        text.insert_str(comma, &format!(",{first}"));
    }
    Some(text.into_bytes())
}

/// Changes one node of a tree.
pub(super) fn tree(rng: &mut Rng, material: &Material<'_>, root: &mut Value) {
    let count = nodes(root).min(NODES);
    let Some(chosen) = rng.gen_index(count) else { return };
    let donor = donor(rng, material, root);
    let mut left = chosen;
    if let Some(node) = find(root, &mut left) {
        change(rng, material, node, donor);
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(entries) => entries.values().map(nodes).sum::<usize>(),
        _ => 0,
    }
}

fn find<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, left)),
        Value::Object(entries) => entries.values_mut().find_map(|entry| find(entry, left)),
        _ => None,
    }
}

/// A node of this document or of another.
fn donor(rng: &mut Rng, material: &Material<'_>, root: &Value) -> Option<Value> {
    if !once_in(rng, 4) {
        return None;
    }
    let mut from = pick(rng, material.others)
        .and_then(|other| serde_json::from_slice(other).ok())
        .unwrap_or_else(|| root.clone());
    let mut left = rng.gen_index(nodes(&from).min(NODES))?;
    find(&mut from, &mut left).map(|node| node.take())
}

fn change(rng: &mut Rng, material: &Material<'_>, node: &mut Value, donor: Option<Value>) {
    if let Some(donor) = donor {
        *node = donor;
        return;
    }
    if once_in(rng, 6) {
        *node = anything(rng);
        return;
    }
    match node {
        Value::Array(items) => list(rng, items),
        Value::Object(entries) => object(rng, entries),
        Value::String(text) => *text = changed_text(rng, material, text),
        Value::Number(_) => *node = number(rng),
        Value::Bool(flag) => *flag = !*flag,
        Value::Null => *node = anything(rng),
    }
}

/// Some value, sometimes a deep one.
fn anything(rng: &mut Rng) -> Value {
    match rng.gen_u8() % 9 {
        0 => Value::Null,
        1 => Value::Bool(rng.gen_bool()),
        2 | 3 => number(rng),
        4 | 5 => text(rng).into(),
        6 => Value::Array(Vec::new()),
        7 => Value::Object(Map::new()),
        _ => {
            let depth = if once_in(rng, 4) { 200 } else { 3 };
            let inner = number(rng);
            (0..depth).fold(inner, |inner, _| Value::Array(vec![inner]))
        }
    }
}

fn number(rng: &mut Rng) -> Value {
    if once_in(rng, 4) {
        return Value::from(i64::from(rng.gen_u8() % 20));
    }
    pick(rng, &WRITTEN).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::from(7))
}

fn text(rng: &mut Rng) -> String {
    let one = pick(rng, &TEXTS).copied().unwrap_or_default();
    if once_in(rng, 6) { "x".repeat(usize::from(rng.gen_u16() % 5000)) } else { one.to_owned() }
}

fn changed_text(rng: &mut Rng, material: &Material<'_>, old: &str) -> String {
    match rng.gen_u8() % 6 {
        0 => text(rng),
        1 => {
            let word = pick(rng, material.words).copied().unwrap_or_default();
            String::from_utf8_lossy(word).into_owned()
        }
        2 => format!("{old}{}", text(rng)),
        3 => format!("{}{old}", text(rng)),
        _ => {
            let mut raw = old.as_bytes().to_vec();
            let inside = Material { others: &[], most: 1 << 12, ..*material };
            bytes::change(rng, &inside, &mut raw);
            String::from_utf8_lossy(&raw).into_owned()
        }
    }
}

fn list(rng: &mut Rng, items: &mut Vec<Value>) {
    let at = rng.gen_index(items.len()).unwrap_or(0);
    match rng.gen_u8() % 6 {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 if !items.is_empty() => {
            let times = if once_in(rng, 6) { 300 } else { 1 };
            let item = items[at].clone();
            items.splice(at..at, std::iter::repeat_n(item, times));
        }
        2 if !items.is_empty() => {
            let other = rng.gen_index(items.len()).unwrap_or(0);
            items.swap(at, other);
        }
        3 => items.clear(),
        4 => items.truncate(at),
        _ => items.insert(at, anything(rng)),
    }
}

fn object(rng: &mut Rng, entries: &mut Map<String, Value>) {
    let key = rng.gen_index(entries.len()).and_then(|at| entries.keys().nth(at).cloned());
    match (rng.gen_u8() % 5, key) {
        (0, Some(key)) => drop(entries.remove(&key)),
        (1, Some(key)) => {
            let value = entries.remove(&key).unwrap_or_default();
            entries.insert(text(rng), value);
        }
        (2, Some(key)) => {
            // A value where another belongs.
            let other =
                rng.gen_index(entries.len()).and_then(|at| entries.values().nth(at).cloned());
            entries.insert(key, other.unwrap_or_default());
        }
        (3, _) if once_in(rng, 3) => {
            entries.extend((0..200).map(|number| (format!("k{number}"), Value::from(number))));
        }
        (_, _) => drop(entries.insert(text(rng), anything(rng))),
    }
}
