//! Units as they stand in config: `"250ms" "9s" "7d"`, plain bytes or `"10MiB"`, lists that may be comma-separated.
//! For `#[serde(deserialize_with = …)]` in the sections that modules declare.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

/// `"250ms"`, `"9s"`, `"5m"`, `"12h"`, `"7d"`; a plain `0` needs no unit.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match NumberOrText::deserialize(from) {
        Ok(NumberOrText::Number(0)) => Ok(Duration::ZERO),
        Ok(NumberOrText::Text(text)) => parse_duration(&text).ok_or_else(|| D::Error::custom(duration_help(&text))),
        Ok(NumberOrText::Number(number)) => Err(D::Error::custom(duration_help(&number.to_string()))),
        Err(_) => Err(D::Error::custom("not a duration: write \"250ms\", \"9s\", \"5m\", \"12h\" or \"7d\"")),
    }
}

fn duration_help(text: &str) -> String {
    format!("'{text}' is not a duration: write \"250ms\", \"9s\", \"5m\", \"12h\" or \"7d\"")
}

pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    number.checked_mul(ms_per_unit).map(Duration::from_millis)
}

/// Plain bytes, or a number with `KiB`, `MiB`, `GiB` or `TiB`.
pub fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let help = |text: &str| D::Error::custom(format!("'{text}' is not a size: write plain bytes or \"10MiB\""));
    match NumberOrText::deserialize(from) {
        Ok(NumberOrText::Number(number)) => u64::try_from(number).map_err(|_| help(&number.to_string())),
        Ok(NumberOrText::Text(text)) => parse_bytes(&text).ok_or_else(|| help(&text)),
        Err(_) => Err(D::Error::custom("not a size: write plain bytes or \"10MiB\"")),
    }
}

pub fn optional_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bytes(from).map(Some)
}

pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1_u64 << shift)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A list, or one text split at commas (the form of environment variables).
pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ListOrText {
        List(Vec<String>),
        Text(String),
    }
    match ListOrText::deserialize(from) {
        Ok(ListOrText::List(list)) => Ok(list),
        Ok(ListOrText::Text(text)) => {
            Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        Err(_) => Err(D::Error::custom("not a list of texts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_not() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        assert_eq!(parse_bytes("10MiB"), Some(10 << 20));
        assert_eq!(parse_bytes("512"), Some(512));
        for text in ["", "9", "s", "-1s", "1.5s", "9 parsecs", "99999999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["", "MiB", "10MB", "-1", "99999999999TiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
