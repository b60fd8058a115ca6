//! Pages of the documentation that come from the definitions.

use std::error::Error;
use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use quorate_crds::{ConditionStatus, ConditionType, Reason};
use serde_json::Value;

/// docs/resources.md: every field of both resources.
pub fn resources(definitions: &[CustomResourceDefinition]) -> Result<String, Box<dyn Error>> {
    let mut page = "# Resources\n\n\
        Every field of Quorate's resources, printed from their definitions in [manifests/crds](../manifests/crds) by \
        `make generate`.\n\nAn API server checks all of it when an object is applied: types, bounds, patterns, and the \
        rules that are named here by what they say. Unknown fields are refused or dropped, as `kubectl --validate` says. \
        Durations are in the form of the Gateway API: `90s`, `1h30m`, `500ms`.\n"
        .to_owned();
    for definition in definitions {
        let names = &definition.spec.names;
        let version = definition.spec.versions.first().ok_or("a definition without a version")?;
        let schema = serde_json::to_value(version.schema.as_ref().ok_or("a version without a schema")?)?;
        let schema = &schema["openAPIV3Schema"];
        let short = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        write!(page, "\n## {}\n\n{} Short {short}", names.kind, schema["description"].as_str().unwrap_or_default())?;
        if version.subresources.as_ref().is_some_and(|subresources| subresources.scale.is_some()) {
            write!(page, "; `kubectl scale` works")?;
        }
        writeln!(page, ".")?;
        let rules = said(schema);
        if !rules.is_empty() {
            writeln!(page, "\n* {}", rules.join("\n* "))?;
        }
        for part in ["spec", "status"] {
            writeln!(page, "\n### {}: {part}\n", names.kind)?;
            let rules = said(&schema["properties"][part]);
            if !rules.is_empty() {
                writeln!(page, "* {}\n", rules.join("\n* "))?;
            }
            writeln!(page, "| field | type | default | |\n|---|---|---|---|")?;
            fields("", &schema["properties"][part], &mut page)?;
        }
    }
    Ok(page)
}

/// A row for each field below `parent`, in the order of the paths.
fn fields(parent: &str, schema: &Value, page: &mut String) -> Result<(), Box<dyn Error>> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            // The defaults of an object's fields have rows of their own.
            Value::Null | Value::Object(_) => String::new(),
            default => format!("`{default}`"),
        };
        let mut words = vec![field["description"].as_str().unwrap_or_default().replace('\n', " ")];
        words.extend(said(field).iter().map(|rule| format!("Rule: {rule}.")));
        let words = words.join(" ").trim().replace('|', "\\|");
        writeln!(page, "| `{path}` | {} | {default} | {words} |", kind(field))?;
        fields(&path, field, page)?;
        if let Some(items) = field.get("items").filter(|items| items.get("properties").is_some()) {
            fields(&format!("{path}[]"), items, page)?;
        }
    }
    Ok(())
}

/// The type of a field, with its bounds.
fn kind(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        return values.iter().filter_map(Value::as_str).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
    }
    let most = |key: &str| field[key].as_u64().map(|max| format!(", at most {max}")).unwrap_or_default();
    match field["type"].as_str().unwrap_or_default() {
        "array" => format!("list{}", most("maxItems")),
        "object" if field.get("additionalProperties").is_some() => format!("map{}", most("maxProperties")),
        "string" if field["format"] == "date-time" => "time".to_owned(),
        "string" => format!("text{}", most("maxLength")),
        "integer" => match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => "integer".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// What the rules of a node of the schema say.
fn said(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["message"].as_str()).map(ToOwned::to_owned).collect()
}

/// docs/operations.md: conditions and reasons.
pub fn operations() -> Result<String, Box<dyn Error>> {
    let mut page = "# Conditions and reasons\n\n\
        What `status.conditions` of the [resources](resources.md) say, and what to do. One word, the *reason*, is the \
        same in conditions, Events and metrics. Printed from the code by `make generate`; how a node behaves without \
        Kubernetes is in [operation.md](operation.md).\n\n\
        | condition | of | `True` means |\n|---|---|---|\n"
        .to_owned();
    for condition in ConditionType::ALL {
        let resource = match condition {
            ConditionType::Accepted | ConditionType::Enforced => "QuotaPolicy",
            _ => "RateLimitCluster",
        };
        writeln!(page, "| {} | {resource} | {} |", link(condition.as_str()), condition.meaning())?;
    }
    for condition in ConditionType::ALL {
        writeln!(page, "\n## {condition}\n\n| status | reason | what is so | what to do |\n|---|---|---|---|")?;
        for status in [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown] {
            for reason in Reason::ALL.iter().filter(|reason| reason.conditions().contains(&(condition, status))) {
                writeln!(page, "| {} | `{reason}` | {} | {} |", status.as_str(), reason.meaning(), reason.remedy())?;
            }
        }
    }
    Ok(page)
}

fn link(heading: &str) -> String {
    format!("[{heading}](#{})", heading.to_lowercase())
}
