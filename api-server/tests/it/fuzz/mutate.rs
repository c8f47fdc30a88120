//! Changes of an input: of its bytes, and of its tree where it is JSON.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// Longest input; the server's own limits are tested elsewhere.
const MOST_BYTES: usize = 64 << 10;

/// What parsers look at, and what they often forget.
const WORDS: [&str; 56] = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "'",
    "`",
    "\\",
    ",",
    ":",
    "$",
    "${",
    "}}",
    "{{",
    "#",
    "\0",
    "\u{feff}",
    "\u{202e}",
    "é",
    "\u{10ffff}",
    "null",
    "true",
    "NaN",
    "-Inf",
    "0x",
    "1e999",
    "-0",
    "18446744073709551616",
    "5m",
    "1y2w",
    "-1s",
    "[5m:]",
    " offset -1h",
    " @ end()",
    " by (",
    " on () group_left",
    "=~\"(a+)+$\"",
    "!=",
    "bool",
    "$ref",
    "#/spec/panels/x",
    "${a:b}",
    "$__interval",
    "%",
    "%00",
    "&",
    "=",
    "---\n",
    "&a ",
    "*a",
    "!!",
    "<<: ",
    "\t",
    "\n",
];

/// One to eight changes of `from`; `other` lends parts.
pub(super) fn mutated(from: &[u8], other: &[u8], is_json: bool, random: &mut StdRng) -> Vec<u8> {
    let mut input = from.to_vec();
    for _ in 0..random.random_range(1..=8) {
        let tree =
            if is_json && random.random_ratio(1, 2) { serde_json::from_slice::<Value>(&input).ok() } else { None };
        match tree {
            Some(mut tree) => {
                change_tree(&mut tree, other, random);
                input = tree.to_string().into_bytes();
            }
            None => change_bytes(&mut input, other, random),
        }
        input.truncate(MOST_BYTES);
    }
    input
}

fn change_bytes(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(0..=24)).min(input.len());
    match random.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => drop(input.drain(at..end)),
        3 => {
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        4 => input.truncate(at),
        5 => {
            let from = random.random_range(0..=other.len());
            let to = (from + random.random_range(0..=200)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        6 => {
            // Deep or long: the same word very often.
            let word = WORDS[random.random_range(0..WORDS.len())];
            let often = 1 << random.random_range(1..12);
            input.splice(at..at, word.repeat(often).into_bytes());
        }
        _ => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            input.splice(at..end, word.bytes());
        }
    }
}

fn change_tree(tree: &mut Value, other: &[u8], random: &mut StdRng) {
    let target = pick(tree, random);
    match random.random_range(0..6) {
        0 => *target = odd(random),
        1 => {
            // A part of another document, wherever it fits or not.
            let mut lender: Value = serde_json::from_slice(other).unwrap_or_default();
            *target = pick(&mut lender, random).take();
        }
        2 => remove_one(target, random),
        3 => {
            let inner = target.take();
            *target = if random.random() { json!([inner]) } else { json!({"kind": "x", "spec": inner}) };
        }
        4 => {
            if let Value::Object(map) = target {
                let keys: Vec<String> = map.keys().cloned().collect();
                if let Some(key) = choose(&keys, random) {
                    let value = map.remove(key).unwrap_or_default();
                    map.insert(WORDS[random.random_range(0..WORDS.len())].to_owned(), value);
                }
            } else if let Value::Array(list) = target {
                let copy = list.clone();
                list.extend(copy);
            }
        }
        _ => {
            if let Value::String(text) = target {
                let word = WORDS[random.random_range(0..WORDS.len())];
                let ends: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
                text.insert_str(ends[random.random_range(0..ends.len())], word);
            } else {
                *target = odd(random);
            }
        }
    }
}

/// A node somewhere in the tree.
fn pick<'t>(tree: &'t mut Value, random: &mut StdRng) -> &'t mut Value {
    let count = match tree {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    };
    if count == 0 || random.random_ratio(1, 6) {
        return tree;
    }
    let at = random.random_range(0..count);
    match tree {
        Value::Object(map) => match map.values_mut().nth(at) {
            Some(inner) => pick(inner, random),
            None => unreachable!("counted before"),
        },
        Value::Array(list) => pick(&mut list[at], random),
        leaf => leaf,
    }
}

fn remove_one(node: &mut Value, random: &mut StdRng) {
    match node {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            if let Some(key) = choose(&keys, random) {
                map.remove(key);
            }
        }
        Value::Array(list) if !list.is_empty() => drop(list.remove(random.random_range(0..list.len()))),
        other => *other = Value::Null,
    }
}

fn choose<'l, T>(list: &'l [T], random: &mut StdRng) -> Option<&'l T> {
    (!list.is_empty()).then(|| &list[random.random_range(0..list.len())])
}

fn odd(random: &mut StdRng) -> Value {
    let word = WORDS[random.random_range(0..WORDS.len())];
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e308),
        5 => json!(""),
        6 => json!(word),
        7 => json!(word.repeat(500)),
        8 => json!([]),
        9 => json!({}),
        10 => (0..random.random_range(1..120)).fold(json!(1), |inner, _| json!([inner])),
        _ => Value::Object(Map::from_iter([(word.to_owned(), json!(word))])),
    }
}
