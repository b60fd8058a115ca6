//! The part of an API server that judges an object by its schema, as far as Quorate's schemas use it, in an API server's
//! words. CEL is kube-cel's.

use kube_cel::Validator;
use kube_cel::cel::Program;
use serde_json::{Map, Value};

/// Everything an API server would say against `object`.
pub fn refusals(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let object = kube_cel::apply_defaults(schema, &without_nulls(schema, object));
    let old = old.map(|old| kube_cel::apply_defaults(schema, old));
    let mut found = Vec::new();
    walk("", schema, &object, &mut found);
    // As there, rules are only asked about what has its shape.
    if found.is_empty()
        && let Err(errors) = Validator::new().validate(schema, &object, old.as_ref())
    {
        found.extend(errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field_path, error.message)));
    }
    found
}

/// A null is as good as absent where the field is nullable, and where it has a default, which comes in its place.
fn without_nulls(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| without_nulls(&schema["items"], item)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name, value, &schema["properties"][name]))
            .filter(|(_, value, field)| {
                !(value.is_null() && (field["nullable"] == true || !field["default"].is_null()))
            })
            .map(|(name, value, field)| (name.clone(), without_nulls(field, value)))
            .collect::<Map<_, _>>()
            .into(),
        _ => value.clone(),
    }
}

fn walk(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let mut say = |words: String| found.push(format!("{path}: {words}"));
    let fits = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        other => panic!("{path}: this test knows no {other}"),
    };
    if !fits {
        return say(format!("must be of type {}", schema["type"]));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        say(format!("Unsupported value: {value}"));
    }
    let (low, high) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if let Some(number) = value.as_f64()
        && (low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high))
    {
        say("is out of its range".to_owned());
    }
    if let Some(text) = value.as_str() {
        let chars = text.chars().count() as u64;
        if let Some(max) = schema["maxLength"].as_u64().filter(|max| chars > *max) {
            say(format!("may not be more than {max} bytes"));
        }
        if let Some(min) = schema["minLength"].as_u64().filter(|min| chars < *min) {
            say(format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !matches(pattern, text)
        {
            say(format!("should match {pattern}"));
        }
    }
    match value {
        Value::Array(items) => list(path, schema, items, found),
        Value::Object(fields) => object(path, schema, fields, found),
        _ => {}
    }
}

fn list(path: &str, schema: &Value, items: &[Value], found: &mut Vec<String>) {
    if let Some(max) = schema["maxItems"].as_u64().filter(|max| items.len() as u64 > *max) {
        found.push(format!("{path}: must have at most {max} items"));
    }
    if let Some(min) = schema["minItems"].as_u64().filter(|min| (items.len() as u64) < *min) {
        found.push(format!("{path}: should have at least {min} items"));
    }
    let key = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(vec![item.clone()]),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            Some(keys.iter().map(|key| item[key.as_str().unwrap()].clone()).collect())
        }
        _ => None,
    };
    for (i, item) in items.iter().enumerate() {
        if key(item).is_some_and(|own| items[..i].iter().any(|other| key(other).as_ref() == Some(&own))) {
            found.push(format!("{path}[{i}]: Duplicate value"));
        }
        walk(&format!("{path}[{i}]"), &schema["items"], item, found);
    }
}

fn object(path: &str, schema: &Value, fields: &Map<String, Value>, found: &mut Vec<String>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{}: Required value", at(name)));
        }
    }
    if let Some(max) = schema["maxProperties"].as_u64().filter(|max| fields.len() as u64 > *max) {
        found.push(format!("{path}: must have at most {max} properties"));
    }
    for (name, value) in fields {
        // What every object has is not in the schema.
        let everywhere = path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(field), _) | (None, Some(field)) => walk(&at(name), field, value, found),
            (None, None) if everywhere => {}
            (None, None) => found.push(format!("unknown field {}", at(name))),
        }
    }
}

/// By CEL's own regular expressions, which have the syntax of an API server's.
fn matches(pattern: &str, text: &str) -> bool {
    let mut context = kube_cel::cel::Context::default();
    context.add_variable_from_value("text", text.to_owned());
    context.add_variable_from_value("pattern", pattern.to_owned());
    Program::compile("text.matches(pattern)").unwrap().execute(&context).unwrap() == true.into()
}

/// The paths of lists, maps and texts without a bound.
pub fn unbounded(path: &str, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let bound = match schema["type"].as_str().unwrap() {
        "array" => Some("maxItems"),
        "string" if schema["enum"].is_null() && schema["format"] != "date-time" => Some("maxLength"),
        "object" if schema.get("additionalProperties").is_some() => Some("maxProperties"),
        _ => None,
    };
    if bound.is_some_and(|bound| !schema[bound].is_u64()) {
        found.push(path.to_owned());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(unbounded(&format!("{path}.{name}"), field));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(field) = schema.get(inner) {
            found.extend(unbounded(&format!("{path}[]"), field));
        }
    }
    found
}
