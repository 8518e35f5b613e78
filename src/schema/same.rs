//! When two JSON values are the same: by meaning, key order free.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Number, Value};

pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// By value: integers exactly, others as floats.
pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// Equal for values that are the same.
pub(super) fn hash_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0.hash(&mut hasher),
        Value::Bool(bool) => (1, bool).hash(&mut hasher),
        // 1 and 1.0 are one number, 0 and -0 too.
        Value::Number(number) => (2, (number.as_f64().unwrap_or_default() + 0.0).to_bits()).hash(&mut hasher),
        Value::String(text) => (3, text).hash(&mut hasher),
        Value::Array(items) => items.iter().for_each(|item| (4, hash_of(item)).hash(&mut hasher)),
        Value::Object(members) => {
            let sum = members.iter().fold(0_u64, |sum, (key, value)| {
                let mut member = DefaultHasher::new();
                (key, hash_of(value)).hash(&mut member);
                sum.wrapping_add(member.finish())
            });
            (5, sum).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_the_same_by_meaning() {
        for (a, b, expected) in [
            (json!(1), json!(1.0), true),
            (json!(0), json!(-0.0), true),
            (json!({"a": 1, "b": [2]}), json!({"b": [2.0], "a": 1}), true),
            (json!([1, 2]), json!([2, 1]), false),
            (json!("1"), json!(1), false),
            (json!(9007199254740993_i64), json!(9007199254740992_i64), false),
            (json!({"a": null}), json!({"b": null}), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
            if expected {
                assert_eq!(hash_of(&a), hash_of(&b), "{a} {b}");
            }
        }
    }
}
