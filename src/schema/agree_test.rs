//! Two ways to the same verdict: the validator's, and that of our rules.

use serde_json::{Value, json};

use super::judge;
use super::testing::schema;

/// A random schema of draft 07, of keywords that two implementations can agree on.
fn rules_of(random: &mut fastrand::Rng, depth: usize) -> Value {
    let mut rules = serde_json::Map::new();
    for _ in 0..random.usize(1..4) {
        let inner = |random: &mut fastrand::Rng| {
            if depth == 0 { json!({"type": "string"}) } else { rules_of(random, depth - 1) }
        };
        let (keyword, value) = match random.usize(..25) {
            0 => (
                "type",
                json!(["string", "integer", "number", "object", "array", "null", "boolean"][random.usize(..7)]),
            ),
            1 => ("type", json!(["string", "null"])),
            2 => ("maximum", json!(random.u8(..4))),
            3 => ("exclusiveMinimum", json!(random.u8(..3))),
            4 => ("maxLength", json!(random.u8(..3))),
            5 => ("minLength", json!(random.u8(..3))),
            6 => ("maxItems", json!(random.u8(..3))),
            7 => ("minItems", json!(random.u8(..3))),
            8 => ("maxProperties", json!(random.u8(..3))),
            9 => ("required", json!(vec!["abc".split("").nth(random.usize(1..4))])),
            10 => ("properties", json!({"a": inner(random), "b": inner(random)})),
            11 => ("additionalProperties", if random.bool() { json!(false) } else { inner(random) }),
            12 => ("items", if random.bool() { json!([inner(random), inner(random)]) } else { inner(random) }),
            13 => ("additionalItems", json!(random.bool())),
            14 => ("contains", inner(random)),
            15 => ("anyOf", json!([inner(random), inner(random)])),
            16 => ("oneOf", json!([inner(random), inner(random)])),
            17 => ("allOf", json!([inner(random), inner(random)])),
            18 => ("not", inner(random)),
            19 => ("if", inner(random)),
            20 => ("then", inner(random)),
            21 => ("else", inner(random)),
            22 => ("enum", json!([1, "a", null, {"a": 1}])),
            23 => ("dependencies", json!({"a": ["b"], "b": inner(random)})),
            _ => ("multipleOf", json!([1.0, 2.0, 0.5][random.usize(..3)])),
        };
        rules.insert(keyword.to_owned(), value);
    }
    Value::Object(rules)
}

fn value_of(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.usize(..if depth == 0 { 6 } else { 10 }) {
        0 => json!(null),
        1 => json!(random.bool()),
        2 => json!(random.u8(..4)),
        3 => json!(f64::from(random.u8(..8)) / 2.0),
        4 => json!("😀".repeat(random.usize(..3))),
        5 => json!("a"),
        6 | 7 => json!((0..random.usize(..3)).map(|_| value_of(random, depth - 1)).collect::<Vec<_>>()),
        _ => (0..random.usize(..3))
            .map(|_| (["a", "b", "c"][random.usize(..3)].to_owned(), value_of(random, depth - 1)))
            .collect(),
    }
}

#[test]
fn our_rules_and_the_validator_agree_on_random_schemas_and_documents() {
    let mut wrong = 0;
    for seed in 0..1_500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let rules = rules_of(&mut random, 2);
        let schema = schema(rules.clone());
        let (validator, tree) = schema.parts();
        for _ in 0..10 {
            let event = value_of(&mut random, 3);
            let told = judge::violations(tree, &event);
            assert_eq!(told.is_empty(), validator.is_valid(&event), "seed {seed}: {rules} {event} {told:?}");
            assert_eq!(judge::is_valid(tree, tree.root(), &event), told.is_empty());
            wrong += usize::from(!told.is_empty());
        }
    }
    assert!((1_000..14_000).contains(&wrong), "{wrong}");
}
