//! Who is admitted, and who is not and why. The keys in `tests/data/auth` are for these tests alone.

use std::path::Path;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;

const RSA_PRIVATE: &str = include_str!("../../../tests/data/auth/rsa.private.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/data/auth/rsa.public.pem");
const RSA_PKCS1: &str = include_str!("../../../tests/data/auth/rsa.pkcs1.pem");
const RSA_SHORT: &str = include_str!("../../../tests/data/auth/rsa1024.public.pem");
const ED_PRIVATE: &str = include_str!("../../../tests/data/auth/ed25519.private.pem");
const ED_PUBLIC: &str = include_str!("../../../tests/data/auth/ed25519.public.pem");
const SECRET: &str = "thirty-two bytes are the least it has";

fn admit(guard: &Guard, bearer: Option<&str>) -> Result<Grant, Denied> {
    guard.admit(guard.look(bearer))
}

fn options(toml: &str) -> Options {
    toml::from_str(toml).unwrap_or_else(|e| panic!("{toml}: {e}"))
}

fn hex(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A guard whose keys stand in this file.
fn jwt(file_key: &str, file: &str, algorithms: &[&str], more: &str) -> Result<Guard, KeyError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, file).expect("a file");
    let toml = format!("auth = 'jwt'\n[jwt]\n{file_key} = '{}'\nalgorithms = {algorithms:?}\n{more}", path.display());
    let options = options(&toml);
    assert_eq!(faults(&options), []);
    Guard::new(&options, true)
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({ "exp": get_current_timestamp() + 3_600, "streams": ["test.event"] });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
}

fn sign(header: &Header, claims: &Value) -> String {
    let key = match header.alg {
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::PS256 => EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()),
        _ => Ok(EncodingKey::from_secret(SECRET.as_bytes())),
    };
    encode(header, claims, &key.expect("a key")).expect("a token")
}

fn jwk(key: &DecodingKey, algorithm: Algorithm, kid: Option<&str>) -> Jwk {
    let mut jwk = Jwk::from_decoding_key(key, Some(algorithm)).expect("a key");
    jwk.common.key_id = kid.map(str::to_owned);
    jwk
}

fn rsa_jwk(kid: Option<&str>) -> Jwk {
    jwk(&DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).expect("a key"), Algorithm::RS256, kid)
}

fn ed_jwk(kid: Option<&str>) -> Jwk {
    jwk(&DecodingKey::from_ed_pem(ED_PUBLIC.as_bytes()).expect("a key"), Algorithm::EdDSA, kid)
}

fn set(keys: &[Jwk]) -> String {
    json!({ "keys": keys }).to_string()
}

#[test]
fn without_a_setting_posting_is_open_on_loopback_and_closed_elsewhere() {
    for (toml, on_loopback, admitted) in
        [("", true, true), ("", false, false), ("auth = 'open'", false, true), ("auth = 'closed'", true, false)]
    {
        let guard = Guard::new(&options(toml), on_loopback).expect("a guard");
        let answer = admit(&guard, Some("any"));
        assert_eq!(answer, if admitted { Ok(Grant::everything()) } else { Err(Denied::Closed) }, "{toml}");
        assert_eq!((guard.is_open(), guard.is_closed()), (admitted, !admitted));
    }
}

#[test]
fn only_the_exact_token_is_admitted_and_to_its_own_streams() {
    let (one, two) = (hex("s3cret-one"), hex("s3cret-two").to_uppercase());
    let toml = format!(
        "auth = 'tokens'\ntokens = [{{name = 'one', sha256 = '{one}', streams = ['test.event', '/^web[.]/']}}, \
         {{name = 'two', sha256 = '{two}'}}]"
    );
    let guard = Guard::new(&options(&toml), true).expect("a guard");
    let huge = "s3cret-one".repeat(10_000);
    let table = [
        (None, Err(Denied::NoToken)),
        (Some(""), Err(Denied::NoToken)),
        (Some("s3cret-on"), Err(Denied::BadToken)),
        (Some("s3cret-onee"), Err(Denied::BadToken)),
        (Some("3cret-one"), Err(Denied::BadToken)),
        (Some("S3CRET-ONE"), Err(Denied::BadToken)),
        (Some(" s3cret-one"), Err(Denied::BadToken)),
        (Some("s3cret-one\n"), Err(Denied::BadToken)),
        (Some(one.as_str()), Err(Denied::BadToken)),
        (Some(huge.as_str()), Err(Denied::TooLong)),
        (Some("s3cret-one"), Ok([true, true, false])),
        (Some("s3cret-two"), Ok([true, true, true])),
    ];
    for (token, expected) in table {
        let allowed = admit(&guard, token).map(|grant| ["test.event", "web.x", "other"].map(|name| grant.allows(name)));
        assert_eq!(allowed, expected, "{token:?}");
    }
    let printed = format!("{guard:?} {:?}", options(&toml));
    assert!(!printed.contains(&one) && printed.contains("one"), "{printed}");
}

#[test]
fn a_list_of_tokens_with_faults_is_refused_with_the_name_and_without_the_hash() {
    let good = hex("x");
    let entry = |rest: &str| format!("tokens = [{{name = 'bad', {rest}}}]");
    for (toml, why) in [
        (entry(&format!("sha256 = '{}'", &good[1..])), "token 'bad': sha256 is not 64 hexadecimal digits"),
        (entry(&format!("sha256 = '{}ü'", &good[2..])), "token 'bad': sha256 is not"),
        (entry(&format!("sha256 = '+{}'", &good[1..])), "token 'bad': sha256 is not"),
        (entry(&format!("sha256 = '{good}', streams = []")), "token 'bad': streams: it names no stream"),
        (entry(&format!("sha256 = '{good}', streams = ['/[/']")), "token 'bad': streams: a pattern is no regular"),
        (entry(&format!("sha256 = '{good}', streams = ['a b']")), "token 'bad': streams: 'a b' is no stream name"),
        (entry(&format!("sha256 = '{good}', stream = 'a'")), "unknown field `stream`"),
        (format!("tokens = [{{name = '', sha256 = '{good}'}}]"), "it has no name"),
        (
            format!("tokens = [{{name = 'a', sha256 = '{good}'}}, {{name = 'a', sha256 = '{}'}}]", hex("y")),
            "token 'a': the name is given twice",
        ),
        (
            format!("tokens = [{{name = 'a', sha256 = '{good}'}}, {{name = 'b', sha256 = '{good}'}}]"),
            "token 'b': another token has the same sha256",
        ),
        (format!("tokens = '{good}'"), "not a list of"),
        (format!("tokens = [{{name = 'a', sha256 = ['{good}']}}]"), "not a list of"),
    ] {
        let table: toml::Table = toml.parse().expect("TOML");
        let error = toml::Value::Table(table).try_into::<Options>().expect_err("a fault").to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert!(!error.contains(&good[2..]), "{error}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_faults() {
    let token = format!("tokens = [{{name = 'a', sha256 = '{}'}}]", hex("x"));
    for (toml, key) in [
        ("auth = 'tokens'", "intake.auth"),
        (token.as_str(), "intake.tokens"),
        ("[jwt]\nkey_file = 'x'", "intake.jwt.key_file"),
        ("[jwt]\njwks_file = 'x'", "intake.jwt.jwks_file"),
        ("auth = 'jwt'\n[jwt]\nalgorithms = ['EdDSA']", "intake.jwt.key_file"),
        ("auth = 'jwt'\n[jwt]\nkey_file = 'x'", "intake.jwt.algorithms"),
        ("auth = 'jwt'\n[jwt]\nkey_file = 'x'\nalgorithms = ['RS256', 'HS256']", "intake.jwt.algorithms"),
        ("auth = 'jwt'\n[jwt]\nkey_file = 'x'\njwks_file = 'x'\nalgorithms = ['RS256']", "intake.jwt.key_file"),
        ("[jwt]\nstreams_claim = ''", "intake.jwt.streams_claim"),
    ] {
        let keys: Vec<String> = faults(&options(toml)).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key], "{toml}");
    }
    assert_eq!(faults(&options("")), []);
    assert_eq!(faults(&options(&format!("auth = 'closed'\n{token}"))), [], "closed for a while");
    for name in ["none", "ES256", "hs256"] {
        assert!(toml::from_str::<Options>(&format!("[jwt]\nalgorithms = ['{name}']")).is_err(), "{name}");
    }
    let listed = options("[jwt]\nalgorithms = 'RS256, EdDSA'").jwt.algorithms;
    assert_eq!(listed, [SignedWith::Rs256, SignedWith::EdDsa], "as in the environment");
}

#[test]
fn a_token_signed_with_the_key_is_admitted_to_the_streams_of_its_claim() {
    for (algorithm, name, file) in [
        (Algorithm::HS256, "HS256", SECRET.to_owned()),
        (Algorithm::HS256, "HS256", format!("{SECRET}\n")),
        (Algorithm::HS256, "HS256", format!("{SECRET}\r\n")),
        (Algorithm::RS256, "RS256", RSA_PUBLIC.to_owned()),
        (Algorithm::RS256, "RS256", RSA_PKCS1.to_owned()),
        (Algorithm::EdDSA, "EdDSA", ED_PUBLIC.to_owned()),
    ] {
        let guard = jwt("key_file", &file, &[name], "").expect("a guard");
        for kid in [None, Some("any")] {
            let grant = admit(&guard, Some(&sign(&header(algorithm, kid), &claims(&json!({}))))).expect("a grant");
            assert!(grant.allows("test.event") && !grant.allows("other"), "{name}");
        }
    }
}

#[test]
fn the_claim_may_be_a_list_or_a_text_and_must_be_there() {
    let guard = jwt("key_file", SECRET, &["HS256"], "streams_claim = 'https://x.org/may'").expect("a guard");
    let nested = "[".repeat(200) + &"]".repeat(200);
    for (claim, expected) in [
        (json!(["test.event", "/^web[.]/"]), Ok([true, true, false])),
        (json!("test.event /^web[.]/"), Ok([true, true, false])),
        (json!(" test.event,web.x , "), Ok([true, true, false])),
        (json!(["/^(web|test)[.]{1,3}[a-z]+$/"]), Ok([true, true, false])),
        (json!(null), Err(Denied::NoStreams)),
        (json!([]), Err(Denied::NoStreams)),
        (json!(" , "), Err(Denied::NoStreams)),
        (json!(5), Err(Denied::BadStreams)),
        (json!({ "test.event": true }), Err(Denied::BadStreams)),
        (json!(["test.event", 5]), Err(Denied::BadStreams)),
        (json!(["/[/"]), Err(Denied::BadStreams)),
        (json!("/^web[.]{1,3}/"), Err(Denied::BadStreams)),
        (json!(["*"]), Err(Denied::BadStreams)),
        (json!(nested), Err(Denied::BadStreams)),
        (json!(["/(a{1000}){1000}/"]), Err(Denied::BadStreams)),
    ] {
        let token = sign(&Header::new(Algorithm::HS256), &claims(&json!({ "https://x.org/may": claim })));
        let allowed =
            admit(&guard, Some(&token)).map(|grant| ["test.event", "web.x", "other"].map(|n| grant.allows(n)));
        assert_eq!(allowed, expected, "{claim}");
    }
    let without = sign(&Header::new(Algorithm::HS256), &claims(&json!({})));
    assert_eq!(admit(&guard, Some(&without)), Err(Denied::NoStreams), "`streams` is not the claim here");
}

#[test]
fn claims_of_time_issuer_and_audience_are_checked() {
    let more = "issuer = 'me'\naudience = 'sluice'";
    let guard = jwt("key_file", SECRET, &["HS256"], more).expect("a guard");
    let now = get_current_timestamp();
    for (change, expected) in [
        (json!({}), Ok(())),
        (json!({ "aud": ["x", "sluice"] }), Ok(())),
        (json!({ "exp": now - 30 }), Ok(())),
        (json!({ "nbf": now + 30 }), Ok(())),
        (json!({ "exp": now - 90 }), Err(Denied::Expired)),
        (json!({ "exp": 0 }), Err(Denied::Expired)),
        (json!({ "exp": null }), Err(Denied::NoExpiry)),
        (json!({ "exp": "tomorrow" }), Err(Denied::NoExpiry)),
        (json!({ "exp": -1 }), Err(Denied::NoExpiry)),
        (json!({ "nbf": now + 90 }), Err(Denied::NotYet)),
        (json!({ "nbf": "tomorrow" }), Err(Denied::NotJwt)),
        (json!({ "iss": "you" }), Err(Denied::Issuer)),
        (json!({ "iss": null }), Err(Denied::Issuer)),
        (json!({ "iss": 5 }), Err(Denied::Issuer)),
        (json!({ "aud": "else" }), Err(Denied::Audience)),
        (json!({ "aud": [] }), Err(Denied::Audience)),
        (json!({ "aud": 5 }), Err(Denied::Audience)),
        (json!({ "aud": null }), Err(Denied::Audience)),
    ] {
        let mut claims = claims(&json!({ "iss": "me", "aud": "sluice" }));
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let answer = admit(&guard, Some(&sign(&Header::new(Algorithm::HS256), &claims)));
        assert_eq!(answer.map(|_| ()), expected, "{change}");
    }
    let guard = jwt("key_file", SECRET, &["HS256"], "").expect("a guard");
    let token = sign(&Header::new(Algorithm::HS256), &claims(&json!({ "aud": "else" })));
    assert_eq!(
        admit(&guard, Some(&token)),
        Err(Denied::Audience),
        "whoever it is meant for, it is not said that it is us"
    );
}

#[test]
fn only_the_configured_algorithm_counts_whatever_the_token_says() {
    let guard = jwt("key_file", RSA_PUBLIC, &["RS256"], "").expect("a guard");
    let good = sign(&Header::new(Algorithm::RS256), &claims(&json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let with_public_key = |file: &str| {
        let key = EncodingKey::from_secret(file.as_bytes());
        encode(&Header::new(Algorithm::HS256), &claims(&json!({})), &key).expect("a token")
    };
    // {"alg":"none"}, {"alg":"None","typ":"JWT"}, {"typ":"JWT"}
    let unsigned = ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0", "eyJ0eXAiOiJKV1QifQ"];
    let huge = format!("{}.{}.{}", parts[0], "A".repeat(TOKEN_BYTES_MAX), parts[2]);
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::RS256) };
    let mut table = vec![
        (with_public_key(RSA_PUBLIC), Denied::Algorithm),
        (with_public_key(RSA_PUBLIC.trim_end()), Denied::Algorithm),
        (sign(&Header::new(Algorithm::HS256), &claims(&json!({}))), Denied::Algorithm),
        (sign(&Header::new(Algorithm::RS384), &claims(&json!({}))), Denied::Algorithm),
        (sign(&Header::new(Algorithm::PS256), &claims(&json!({}))), Denied::Algorithm),
        (sign(&Header::new(Algorithm::EdDSA), &claims(&json!({}))), Denied::Algorithm),
        (sign(&critical, &claims(&json!({}))), Denied::NotJwt),
        (format!("{}.{}.", parts[0], parts[1]), Denied::Signature),
        (format!("{}.{}.{}", parts[0], parts[1], "AAAA"), Denied::Signature),
        (format!("{}.{}.{}", parts[0], "e30", parts[2]), Denied::Signature),
        (format!("{good}A"), Denied::Signature),
        (format!("{good}="), Denied::NotJwt),
        (format!("{good}.x"), Denied::NotJwt),
        (parts[..2].join("."), Denied::NotJwt),
        ("....".into(), Denied::NotJwt),
        ("\u{0}\u{fffd}".into(), Denied::NotJwt),
        (huge, Denied::TooLong),
        (String::new(), Denied::NoToken),
    ];
    for header in unsigned {
        table.push((format!("{header}.{}.", parts[1]), Denied::NotJwt));
        table.push((format!("{header}.{}.{}", parts[1], parts[2]), Denied::NotJwt));
    }
    assert!(admit(&guard, Some(&good)).is_ok());
    for (token, expected) in table {
        let denied = admit(&guard, Some(&token)).expect_err("a refusal");
        assert_eq!(denied, expected, "{token}");
        assert!(token.is_empty() || !denied.to_string().contains(&token), "what was sent is not said again");
    }
}

#[test]
fn the_kid_picks_the_key_of_a_set() {
    let secret = |kid| jwk(&DecodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256, kid);
    let mut other = rsa_jwk(Some("for-encryption"));
    other.common.public_key_use = Some(PublicKeyUse::Encryption);
    let mut foreign = serde_json::to_value(rsa_jwk(Some("foreign"))).expect("JSON");
    (foreign["kty"], foreign["crv"]) = (json!("EC"), json!("secp256k1"));
    let file =
        json!({ "keys": [rsa_jwk(Some("a")), ed_jwk(Some("b")), secret(Some("c")), other, foreign] }).to_string();
    let guard = jwt("jwks_file", &file, &["RS256", "EdDSA"], "").expect("a guard");
    for (algorithm, kid, expected) in [
        (Algorithm::RS256, Some("a"), Ok(())),
        (Algorithm::EdDSA, Some("b"), Ok(())),
        (Algorithm::RS256, None, Ok(())),
        (Algorithm::RS256, Some("b"), Err(Denied::UnknownKey)),
        (Algorithm::RS256, Some("x"), Err(Denied::UnknownKey)),
        (Algorithm::RS256, Some(""), Err(Denied::UnknownKey)),
        (Algorithm::RS256, Some("for-encryption"), Err(Denied::UnknownKey)),
        (Algorithm::HS256, Some("c"), Err(Denied::Algorithm)),
        (Algorithm::HS256, Some("a"), Err(Denied::Algorithm)),
    ] {
        let answer = admit(&guard, Some(&sign(&header(algorithm, kid), &claims(&json!({})))));
        assert_eq!(answer.map(|_| ()), expected, "{algorithm:?} {kid:?}");
    }
    let two = set(&[secret(Some("a")), jwk(&DecodingKey::from_secret(&[7; 32]), Algorithm::HS256, Some("b"))]);
    let guard = jwt("jwks_file", &two, &["HS256"], "").expect("a guard");
    let answer = |kid| admit(&guard, Some(&sign(&header(Algorithm::HS256, kid), &claims(&json!({}))))).map(|_| ());
    assert_eq!(answer(Some("a")), Ok(()));
    assert_eq!(answer(Some("b")), Err(Denied::Signature), "the other key");
    assert_eq!(answer(None), Err(Denied::UnknownKey), "no key is tried where there is a choice");
}

#[test]
fn key_files_that_cannot_be_used_are_faults_that_quote_nothing() {
    let short = jwk(&DecodingKey::from_secret(b"short"), Algorithm::HS256, Some("a"));
    let mut stub = serde_json::to_value(ed_jwk(Some("stub"))).expect("JSON");
    stub["x"] = json!("AAAA");
    let stub = json!({ "keys": [stub] }).to_string();
    let large = "x".repeat((1 << 20) + 1);
    let (key, jwks) = ("key_file", "jwks_file");
    let cut = &RSA_PUBLIC[..200];
    for (kind, file, algorithm, why) in [
        (key, RSA_PUBLIC, "HS256", "it is PEM"),
        (key, RSA_PRIVATE, "HS256", "it is PEM"),
        (key, "hush", "HS256", "at least 32 bytes"),
        (key, "", "HS256", "at least 32 bytes"),
        (key, RSA_PRIVATE, "RS256", "no public key in PEM"),
        (key, SECRET, "RS256", "no public key in PEM"),
        (key, cut, "RS256", "no RSA key"),
        (key, ED_PUBLIC, "RS256", "no RSA key"),
        (key, RSA_SHORT, "RS256", "2048 to 4096 bits, and this one 1024"),
        (key, RSA_PUBLIC, "EdDSA", "no Ed25519 key"),
        (key, RSA_PKCS1, "EdDSA", "no Ed25519 key"),
        (key, large.as_str(), "HS256", "larger than 1 MiB"),
        (jwks, "hush", "RS256", "no JSON Web Key Set (line 1"),
        (jwks, "{}", "RS256", "no JSON Web Key Set"),
        (jwks, r#"{"keys":[]}"#, "RS256", "no key for these algorithms"),
        (jwks, &set(&[ed_jwk(None)]), "RS256", "no key for these algorithms"),
        (jwks, &set(&[short]), "HS256", "key 'a': a secret has at least"),
        (jwks, &stub, "EdDSA", "key 'stub': an Ed25519 key has 32 bytes"),
        (jwks, &set(&[rsa_jwk(Some("a")), rsa_jwk(Some("a"))]), "RS256", "key 'a': there are two"),
    ] {
        let error = jwt(kind, file, &[algorithm], "").expect_err("a fault").to_string();
        assert!(error.contains(why) && error.contains("/keys cannot be used"), "{why}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let missing = options("auth = 'jwt'\n[jwt]\nkey_file = '/nonexistent/key'\nalgorithms = ['RS256']");
    let error = Guard::new(&missing, true).expect_err("a fault");
    assert_eq!(error.path, Path::new("/nonexistent/key"));
    assert!(error.to_string().contains("it cannot be read"), "{error}");
}

#[test]
fn what_one_clone_is_given_holds_for_all_of_them() {
    let guard = jwt("key_file", SECRET, &["HS256"], "").expect("a guard");
    let of_a_worker = guard.clone();
    let token = sign(&header(Algorithm::HS256, None), &claims(&json!({})));
    assert!(of_a_worker.admit(of_a_worker.look(Some(&token))).is_ok());
    let other_secret = "another secret that has its thirty-two bytes";
    guard.replace(&jwt("key_file", other_secret, &["HS256"], "").expect("a guard"));
    assert_eq!(of_a_worker.admit(of_a_worker.look(Some(&token))), Err(Denied::Signature));
    guard.replace(&Guard::open());
    assert!(of_a_worker.is_open() && of_a_worker.admit(of_a_worker.look(None)).is_ok());
}

#[test]
fn a_token_that_is_good_has_a_name_also_where_nothing_may_be_posted_with_it() {
    let guard = jwt("key_file", SECRET, &["HS256"], "").expect("a guard");
    let name = |more: Value| guard.look(Some(&sign(&header(Algorithm::HS256, None), &claims(&more)))).name;
    for (sub, known) in [
        (json!("bot"), true),
        (json!("x".repeat(100)), true),
        (json!("x".repeat(101)), false),
        (json!(""), false),
        (json!("a\u{1b}[2J"), false),
        (json!(7), false),
        (Value::Null, false),
    ] {
        assert_eq!(name(json!({ "sub": sub })).as_deref(), sub.as_str().filter(|_| known), "{sub}");
    }
    assert_eq!(name(json!({ "sub": "bot", "streams": null })).as_deref(), Some("bot"));
    assert_eq!(name(json!({ "sub": "bot", "exp": 1 })), None, "it has expired");
    let token = format!("auth = 'tokens'\ntokens = [{{name = 'ours', sha256 = '{}'}}]", hex("secret"));
    let tokens = Guard::new(&options(&token), true).expect("a guard");
    assert_eq!(tokens.look(Some("secret")).name.as_deref(), Some("ours"));
    for (guard, bearer) in [(&tokens, Some("guess")), (&tokens, None), (&Guard::open(), Some("secret"))] {
        assert_eq!(guard.look(bearer).name, None);
    }
}
