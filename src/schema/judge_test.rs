//! What is told of wrong events: AJV 6's keyword, paths, parameters and words.

use serde_json::{Value, json};

use super::judge::VIOLATIONS_MAX;
use super::testing::{compiled, schema};
use super::violation::Violation;

/// Keyword, path in the event, path in the schema, parameters, message.
type Told = (&'static str, &'static str, &'static str, Value, &'static str);

fn told(rules: &Value, event: &Value) -> Vec<Violation> {
    schema(rules.clone()).violations(event)
}

fn check(rules: Value, event: Value, expected: &[Told]) {
    let found = told(&rules, &event);
    let as_told: Vec<_> = found
        .iter()
        .map(|v| {
            (v.keyword.as_str(), v.data_path.as_str(), v.schema_path.as_str(), v.params.clone(), v.message.as_str())
        })
        .collect();
    assert_eq!(as_told, expected, "{rules} {event}");
}

/// A rule for the property `a`, and a value of it that breaks it.
fn check_one(rule: Value, value: Value, keyword: &'static str, params: Value, message: &'static str) {
    let path = format!("#/properties/a/{keyword}");
    let found = told(&json!({"properties": {"a": rule}}), &json!({"a": value}));
    let expected = Violation::new(keyword, ".a", path, params, message.to_owned());
    assert_eq!(found, [expected], "{rule} {value}");
}

#[test]
fn numbers_are_told_in_the_words_of_the_catalogue() {
    let limit = |comparison: &str, limit: Value, exclusive: bool| json!({"comparison": comparison, "limit": limit, "exclusive": exclusive});
    check_one(json!({"type": "string"}), json!(1), "type", json!({"type": "string"}), "should be string");
    check_one(
        json!({"type": ["string", "null"]}),
        json!(1),
        "type",
        json!({"type": "string,null"}),
        "should be string,null",
    );
    check_one(json!({"type": ["string"]}), json!(1), "type", json!({"type": "string"}), "should be string");
    check_one(json!({"type": "integer"}), json!(1.5), "type", json!({"type": "integer"}), "should be integer");
    check_one(json!({"minimum": 1}), json!(0), "minimum", limit(">=", json!(1), false), "should be >= 1");
    check_one(json!({"maximum": 10}), json!(11), "maximum", limit("<=", json!(10), false), "should be <= 10");
    check_one(
        json!({"exclusiveMinimum": 0}),
        json!(0),
        "exclusiveMinimum",
        limit(">", json!(0), true),
        "should be > 0",
    );
    check_one(
        json!({"exclusiveMaximum": 9.5}),
        json!(10),
        "exclusiveMaximum",
        limit("<", json!(9.5), true),
        "should be < 9.5",
    );
    check_one(
        json!({"maximum": 5, "exclusiveMaximum": 4}),
        json!(9),
        "exclusiveMaximum",
        limit("<", json!(4), true),
        "should be < 4",
    );
    check_one(
        json!({"maximum": 3, "exclusiveMaximum": 4}),
        json!(9),
        "maximum",
        limit("<=", json!(3), false),
        "should be <= 3",
    );
    check_one(
        json!({"multipleOf": 0.5}),
        json!(0.7),
        "multipleOf",
        json!({"multipleOf": 0.5}),
        "should be multiple of 0.5",
    );
}

#[test]
fn texts_and_values_are_told_in_the_words_of_the_catalogue() {
    check_one(
        json!({"maxLength": 4}),
        json!("äöüßé"),
        "maxLength",
        json!({"limit": 4}),
        "should NOT be longer than 4 characters",
    );
    check_one(
        json!({"minLength": 2}),
        json!("😀"),
        "minLength",
        json!({"limit": 2}),
        "should NOT be shorter than 2 characters",
    );
    let pattern = json!({"pattern": "^\"a+\"$", "maxLength": 9});
    check_one(pattern, json!("b"), "pattern", json!({"pattern": "^\"a+\"$"}), "should match pattern \"^\"a+\"$\"");
    let format = json!({"format": "date-time", "maxLength": 99});
    check_one(format, json!("x"), "format", json!({"format": "date-time"}), "should match format \"date-time\"");
    let allowed = json!({"allowedValues": [1, "b"]});
    check_one(json!({"enum": [1, "b"]}), json!(2), "enum", allowed, "should be equal to one of the allowed values");
    check_one(
        json!({"const": {"x": 1}}),
        json!({}),
        "const",
        json!({"allowedValue": {"x": 1}}),
        "should be equal to constant",
    );
    check_one(json!(false), json!(1), "false schema", json!({}), "boolean schema is false");
    check_one(json!({"not": {"type": "null"}}), json!(null), "not", json!({}), "should NOT be valid");
}

#[test]
fn lists_and_objects_are_told_in_the_words_of_the_catalogue() {
    check_one(json!({"minItems": 1}), json!([]), "minItems", json!({"limit": 1}), "should NOT have fewer than 1 items");
    check_one(
        json!({"maxItems": 2}),
        json!([1, 2, 3]),
        "maxItems",
        json!({"limit": 2}),
        "should NOT have more than 2 items",
    );
    let scalar = json!({"uniqueItems": true, "items": {"type": "integer"}});
    let twins = "should NOT have duplicate items (items ## 1 and 0 are identical)";
    check_one(scalar, json!([1, 1.0]), "uniqueItems", json!({"i": 0, "j": 1}), twins);
    let any = json!({"uniqueItems": true, "maxItems": 9});
    let twins = "should NOT have duplicate items (items ## 0 and 2 are identical)";
    let values = json!([{"x": 1, "y": 2}, 5, {"y": 2, "x": 1}]);
    check_one(any, values, "uniqueItems", json!({"i": 2, "j": 0}), twins);
    let tuple = json!({"items": [{}], "additionalItems": false});
    check_one(tuple, json!([1, 2]), "additionalItems", json!({"limit": 1}), "should NOT have more than 1 items");
    check_one(
        json!({"maxProperties": 1}),
        json!({"x": 1, "y": 2}),
        "maxProperties",
        json!({"limit": 1}),
        "should NOT have more than 1 properties",
    );
    check_one(
        json!({"minProperties": 1}),
        json!({}),
        "minProperties",
        json!({"limit": 1}),
        "should NOT have fewer than 1 properties",
    );
    let missing = json!({"missingProperty": "x"});
    check_one(json!({"required": ["x"]}), json!({}), "required", missing.clone(), "should have required property 'x'");
    let described = json!({"required": ["x"], "properties": {"x": {"type": "string"}}});
    check_one(described, json!({}), "required", missing, "should have required property 'x'");
    let one = json!({"property": "a", "missingProperty": "b", "depsCount": 1, "deps": "b"});
    let needs = "should have property b when property a is present";
    check_one(json!({"dependencies": {"a": ["b"]}}), json!({"a": 1}), "dependencies", one, needs);
}

#[test]
fn every_property_too_many_is_told() {
    let extra = |name: &str| json!({ "additionalProperty": name });
    let message = "should NOT have additional properties";
    check(
        json!({"properties": {"a": {"type": "string"}}, "additionalProperties": false}),
        json!({"x": 1, "a": 1, "y": 2}),
        &[
            ("additionalProperties", "", "#/additionalProperties", extra("x"), message),
            ("additionalProperties", "", "#/additionalProperties", extra("y"), message),
            ("type", ".a", "#/properties/a/type", json!({"type": "string"}), "should be string"),
        ],
    );
}

#[test]
fn several_dependencies_are_told_each() {
    let params = |missing: &str| json!({"property": "a", "missingProperty": missing, "depsCount": 2, "deps": "b, c"});
    let message = "should have properties b, c when property a is present";
    check(
        json!({"dependencies": {"d": {"required": ["e"]}, "a": ["b", "c"]}}),
        json!({"a": 1, "d": 1}),
        &[
            ("dependencies", "", "#/dependencies", params("b"), message),
            ("dependencies", "", "#/dependencies", params("c"), message),
            (
                "required",
                "",
                "#/dependencies/d/required",
                json!({"missingProperty": "e"}),
                "should have required property 'e'",
            ),
        ],
    );
}

#[test]
fn what_branches_find_stands_before_what_is_said_of_them() {
    let string = ("type", "", "#/anyOf/0/type", json!({"type": "string"}), "should be string");
    let null = ("type", "", "#/anyOf/1/type", json!({"type": "null"}), "should be null");
    let any = ("anyOf", "", "#/anyOf", json!({}), "should match some schema in anyOf");
    check(json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!({}), &[string, null, any]);
    let one = "should match exactly one schema in oneOf";
    check(
        json!({"oneOf": [{"type": "string"}, {"required": ["x"]}]}),
        json!({}),
        &[
            ("type", "", "#/oneOf/0/type", json!({"type": "string"}), "should be string"),
            (
                "required",
                "",
                "#/oneOf/1/required",
                json!({"missingProperty": "x"}),
                "should have required property 'x'",
            ),
            ("oneOf", "", "#/oneOf", json!({"passingSchemas": null}), one),
        ],
    );
    check(
        json!({"oneOf": [{}, {"type": "object"}]}),
        json!({}),
        &[("oneOf", "", "#/oneOf", json!({"passingSchemas": [0, 1]}), one)],
    );
    let branch = |keyword: &'static str, path| {
        [
            ("required", "", path, json!({"missingProperty": "b"}), "should have required property 'b'"),
            (
                "if",
                "",
                "#/if",
                json!({ "failingKeyword": keyword }),
                if keyword == "then" { "should match \"then\" schema" } else { "should match \"else\" schema" },
            ),
        ]
    };
    let rules = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["b"]}});
    check(rules.clone(), json!({"a": 1}), &branch("then", "#/then/required"));
    check(rules, json!({}), &branch("else", "#/else/required"));
    let number = json!({"type": "number"});
    check(
        json!({"properties": {"a": {"contains": {"type": "number"}}}}),
        json!({"a": ["x"]}),
        &[
            ("type", ".a[0]", "#/properties/a/contains/type", number, "should be number"),
            ("contains", ".a", "#/properties/a/contains", json!({}), "should contain a valid item"),
        ],
    );
}

#[test]
fn a_wrong_name_is_told_with_the_name() {
    let found = told(&json!({"propertyNames": {"maxLength": 2}}), &json!({"abc": 1, "ok": 1}));
    let inner = Violation {
        property_name: Some("abc".into()),
        ..Violation::new(
            "maxLength",
            "",
            "#/propertyNames/maxLength".into(),
            json!({"limit": 2}),
            "should NOT be longer than 2 characters".into(),
        )
    };
    let outer = Violation::new(
        "propertyNames",
        "",
        "#/propertyNames".into(),
        json!({"propertyName": "abc"}),
        "property name 'abc' is invalid".into(),
    );
    assert_eq!(found, [inner.clone(), outer.clone()]);
    let text = serde_json::to_value(&inner).expect("JSON");
    assert_eq!(text["propertyName"], "abc");
    assert_eq!(text["dataPath"], "");
    assert_eq!(text["schemaPath"], "#/propertyNames/maxLength");
    assert!(serde_json::to_value(&outer).expect("JSON").get("propertyName").is_none());
}

#[test]
fn paths_are_those_of_javascript() {
    let string = json!({"type": "string"});
    let rules = json!({"properties": {"meta": {"properties": {"id": string}}, "arr": {"items": {"properties": {"k": string}}},
        "we-ird": string, "it's": string, "$s p": string, "map": {"additionalProperties": string},
        "pat": {"patternProperties": {"^x/": string}, "propertyNames": {"maxLength": 9}}, "tup": {"items": [string]}}});
    let event = json!({"meta": {"id": 1}, "arr": [{"k": 1}], "we-ird": 1, "it's": 1, "$s p": 1, "map": {"a": 1}, "pat": {"x/y": 1}, "tup": [1]});
    let found = told(&rules, &event);
    let paths: Vec<_> = found.iter().map(|v| (v.data_path.as_str(), v.schema_path.as_str())).collect();
    assert_eq!(
        paths,
        [
            (".meta.id", "#/properties/meta/properties/id/type"),
            (".arr[0].k", "#/properties/arr/items/properties/k/type"),
            ("['we-ird']", "#/properties/we-ird/type"),
            ("['it\\'s']", "#/properties/it's/type"),
            ("['$s p']", "#/properties/%24s%20p/type"),
            (".map['a']", "#/properties/map/additionalProperties/type"),
            (".pat['x/y']", "#/properties/pat/patternProperties/%5Ex~1/type"),
            (".tup[0]", "#/properties/tup/items/0/type"),
        ]
    );
}

#[test]
fn a_type_is_missed_where_its_group_of_keywords_stands() {
    let keywords = |rules: Value, event: Value| {
        told(&rules, &event).into_iter().map(|violation| violation.keyword).collect::<Vec<_>>()
    };
    assert_eq!(keywords(json!({"type": "object", "required": ["a"], "enum": [1]}), json!(5)), ["type", "enum"]);
    assert_eq!(keywords(json!({"type": "string", "maxLength": 1, "maximum": 1}), json!(5)), ["maximum", "type"]);
    assert_eq!(keywords(json!({"type": "integer", "maximum": 1}), json!(5.5)), ["type", "maximum"]);
    let rules = json!({"required": ["x", "a"], "properties": {"b": {"type": "null"}, "a": {"type": "null"}, "x": {"description": "no rule"}}});
    let found = told(&rules, &json!({"b": 1}));
    let names: Vec<_> = found.iter().map(|violation| (violation.keyword.as_str(), &violation.params)).collect();
    let (x, a) = (json!({"missingProperty": "x"}), json!({"missingProperty": "a"}));
    assert_eq!(names, [("required", &x), ("type", &json!({"type": "null"})), ("required", &a)]);
}

#[test]
fn references_are_followed_and_may_lead_back() {
    let rules = json!({"definitions": {"tree": {"type": "object", "properties": {"kids": {"items": {"$ref": "#/definitions/tree"}}}}},
        "allOf": [{"$ref": "#/definitions/tree", "type": "null"}]});
    let expected =
        ("type", ".kids[0].kids[1]", "#/definitions/tree/type", json!({"type": "object"}), "should be object");
    check(rules, json!({"kids": [{"kids": [{}, 1]}]}), &[expected]);
    assert!(
        compiled(json!({"$ref": "#/definitions/none"})).expect_err("unresolved").starts_with("can't resolve reference")
    );
    let endless =
        schema(json!({"properties": {"a": {"$ref": "#"}}, "anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/anyOf/0"}]}));
    assert!(endless.violations(&json!({})).len() <= VIOLATIONS_MAX);
}

#[test]
fn newer_keywords_are_told_in_the_same_style() {
    let draft = |id: &str, mut rules: Value| {
        rules["$schema"] = json!(format!("https://json-schema.org/draft/{id}/schema"));
        rules
    };
    let message = |rules: Value, event: Value| {
        let found = told(&rules, &event);
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].keyword.clone(), found[0].message.clone())
    };
    for (rules, event, keyword, expected) in [
        (
            json!({"dependentRequired": {"a": ["b"]}}),
            json!({"a": 1}),
            "dependentRequired",
            "should have property b when property a is present",
        ),
        (
            json!({"dependentSchemas": {"a": {"required": ["b"]}}}),
            json!({"a": 1}),
            "required",
            "should have required property 'b'",
        ),
        (
            json!({"contains": {"const": 1}, "minContains": 2}),
            json!([1]),
            "minContains",
            "should contain at least 2 valid items",
        ),
        (
            json!({"contains": {"const": 1}, "maxContains": 1}),
            json!([1, 1]),
            "maxContains",
            "should contain no more than 1 valid items",
        ),
        (
            json!({"properties": {"a": {}}, "unevaluatedProperties": false}),
            json!({"b": 1}),
            "unevaluatedProperties",
            "should NOT have unevaluated properties",
        ),
        (
            json!({"$defs": {"s": {"$anchor": "s", "type": "string"}}, "properties": {"a": {"$ref": "#s"}}}),
            json!({"a": 1}),
            "type",
            "should be string",
        ),
    ] {
        for id in ["2019-09", "2020-12"] {
            assert_eq!(message(draft(id, rules.clone()), event.clone()), (keyword.into(), expected.into()), "{rules}");
        }
    }
    let tuple = draft("2020-12", json!({"prefixItems": [true], "items": false}));
    assert_eq!(message(tuple, json!([1, 2])), ("items".into(), "should NOT have more than 1 items".into()));
    let unevaluated = draft("2020-12", json!({"prefixItems": [true], "unevaluatedItems": false}));
    assert_eq!(
        message(unevaluated, json!([1, 2])),
        ("unevaluatedItems".into(), "should NOT have unevaluated items".into())
    );
}

#[test]
fn every_draft_means_the_same_by_the_old_keywords() {
    for draft in
        ["draft-04/schema#", "draft-06/schema#", "draft-07/schema#", "draft/2019-09/schema", "draft/2020-12/schema"]
    {
        for scheme in ["http", "https"] {
            let rules = json!({"$schema": format!("{scheme}://json-schema.org/{draft}"), "type": "object", "required": ["i"], "properties": {
                "i": {"type": "integer", "minimum": 1}, "f": {"type": "string", "format": "date-time", "maxLength": 99}}});
            let schema = schema(rules);
            assert_eq!(schema.violations(&json!({"i": 1.0, "f": "2020-19-39T29:59:59Z"})), [], "{draft}");
            let found = super::errors_text(&schema.violations(&json!({"i": 0.5, "f": "soon"})));
            let expected = "'.i' should be integer, '.i' should be >= 1, '.f' should match format \"date-time\"";
            assert_eq!(found, expected, "{draft}");
        }
    }
    let old = schema(
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "/x/1.0.0", "definitions": {"n": {"maximum": 5, "exclusiveMaximum": true}}, "properties": {"a": {"$ref": "#/definitions/n"}}}),
    );
    assert_eq!(super::errors_text(&old.violations(&json!({"a": 5}))), "'.a' should be < 5");
}

#[test]
fn schemas_that_cannot_be_used_are_refused_with_the_reason() {
    let long = "x".repeat(300);
    for (rules, expected) in [
        (
            json!({"properties": {"a": {"format": "foo", "maxLength": 1}}}),
            "unknown format \"foo\" is used in schema at path \"#/properties/a\"",
        ),
        (
            json!({"properties": {"a": {"type": "text"}}}),
            "schema is invalid: #/properties/a/type breaks `anyOf` of the meta-schema",
        ),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#", "required": true}), "schema is invalid: "),
        (json!({"pattern": "(?=a)", "maxLength": 1}), "the pattern at # cannot be matched in linear time"),
        (json!({"pattern": "(a)\\1", "maxLength": 1}), "linear time"),
        (json!({"pattern": format!("({long}{{1000}}){{1000}}"), "maxLength": 1}), "linear time"),
        (
            json!({"pattern": "a"}),
            "Schema at /test/1.0.0 is not secure for compilation: `pattern` needs `maxLength` at #",
        ),
        (json!({"$ref": "http://elsewhere.example/x"}), "http://elsewhere.example/x is missing"),
        (json!({"$ref": "/other/1.0.0#/a"}), "/other/1.0.0 is missing"),
    ] {
        let why = compiled(rules.clone()).expect_err("refused");
        assert!(why.contains(expected), "{rules}: {why}");
        assert!(why.len() < 1_000, "{why}");
    }
}

#[test]
fn what_is_told_of_one_event_is_bounded() {
    let rules = json!({"items": {"type": "string"}, "maxItems": 5});
    assert_eq!(told(&rules, &json!(vec![1; 100_000])).len(), VIOLATIONS_MAX);
    let open: serde_json::Map<String, Value> = (0..50_000).map(|number| (format!("k{number}"), json!(1))).collect();
    assert_eq!(told(&json!({"additionalProperties": false}), &json!(open)).len(), VIOLATIONS_MAX);
    let key = "k".repeat(1_000_000);
    let wide = json!({ key: vec![1; 1_000] });
    let found = told(&json!({"additionalProperties": {"items": {"type": "string"}}}), &wide);
    assert!(serde_json::to_string(&found).expect("JSON").len() < 100_000);
    // Twelve levels of four branches each: more than anybody should try.
    let mut nested = json!({"type": "null"});
    for _ in 0..12 {
        nested = json!({"anyOf": [nested, nested, nested, nested]});
        if nested.to_string().len() > 30_000 {
            break;
        }
    }
    assert_eq!(told(&nested, &json!(1)).len(), VIOLATIONS_MAX);
}

#[test]
fn fields_are_declared_by_name_alone() {
    let schema = schema(json!({"definitions": {"m": {"properties": {"id": {}}}}, "additionalProperties": true,
        "allOf": [{"properties": {"all": {}}}], "anyOf": [{"properties": {"any": {}}}],
        "properties": {"meta": {"$ref": "#/definitions/m"}, "open": {"type": "object"}, "l": {"items": {"properties": {"k": {}}}}}}));
    let declares = |dotted: &str| schema.declares(&crate::model::steps_of(dotted));
    for path in ["meta", "meta.id", "all", "open", "l"] {
        assert!(declares(path), "{path}");
    }
    for path in ["id", "meta.x", "meta.id.x", "any", "open.x", "l.k", ""] {
        assert!(!declares(path), "{path}");
    }
    let in_list = ["l".into(), crate::model::Step::Index(7), "k".into()];
    assert!(schema.declares(&in_list));
}
