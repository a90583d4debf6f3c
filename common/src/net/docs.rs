//! The description of a program's routes: `/openapi.json`, and `/docs`, a page made from it to read and to try it.
//!
//! The page needs nothing from elsewhere and no JavaScript to be read; with it, each question can be asked there. It looks like
//! the other pages and takes their stylesheet (`/assets/potluck.css`), but not their script, which would ask for it again.
//! Invariant: whatever the document says stands in the page as text.

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::page::POLICY;

const STYLE: &str = include_str!("docs/style.css");
const SCRIPT: &str = include_str!("docs/try.js");

/// The routes that serve a document.
pub fn router<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let document = serde_json::to_value(document).expect("a document is plain text and numbers");
    let page = page(&document).into_string();
    let json = document.to_string();
    let serve = |kind: &'static str, text: String| {
        let text = Bytes::from(text);
        get(move || async move { answer(kind, text) })
    };
    Router::new()
        .route("/openapi.json", serve("application/json", json))
        .route("/docs", serve("text/html; charset=utf-8", page))
        .route("/docs/style.css", serve("text/css; charset=utf-8", STYLE.to_owned()))
        .route("/docs/try.js", serve("text/javascript; charset=utf-8", SCRIPT.to_owned()))
}

fn answer(kind: &'static str, text: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

/// One route, asked one way.
struct Operation<'a> {
    path: &'a str,
    method: String,
    what: &'a Value,
}

fn page(document: &Value) -> Markup {
    let title = text(&document["info"]["title"]);
    let operations: Vec<_> = fields(&document["paths"])
        .flat_map(|(path, item)| {
            fields(item).map(move |(method, what)| Operation { path, method: method.to_ascii_uppercase(), what })
        })
        .collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/potluck.css";
                link rel="stylesheet" href="/docs/style.css";
                script src="/docs/try.js" defer {}
            }
            body {
                header.top {
                    a.brand href="/" { img src="/assets/icon.svg" alt="" width="28" height="28"; span { "potluck" } }
                    span.place { "HTTP API" }
                }
                main {
                    h1 { (title) }
                    p.what { (prose(&document["info"]["description"])) }
                    p { "The same for programs: " a href="/openapi.json" { "/openapi.json" } " (OpenAPI 3.1)." }
                    noscript { p { "To try a question from here, scripts have to be on; without them, " code { "curl" } " asks as well." } }
                    ul.contents {
                        @for (n, operation) in operations.iter().enumerate() {
                            li { a href=(format!("#route-{n}")) { code { (operation.method) " " (operation.path) } } }
                        }
                    }
                    @for (n, operation) in operations.iter().enumerate() { (route(n, operation)) }
                    h1 { "Shapes" }
                    @for (name, schema) in fields(&document["components"]["schemas"]) { (shape(name, schema)) }
                }
            }
        }
    }
}

fn route(n: usize, Operation { path, method, what }: &Operation<'_>) -> Markup {
    let parameters = what["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        section.card id=(format!("route-{n}")) {
            h2 { code { (method) " " (path) } }
            p { (prose(&what["summary"])) }
            p.what { (prose(&what["description"])) }
            @if method == "GET" {
                form data-path=(path) {
                    @for parameter in parameters.iter().filter(|parameter| parameter["in"] != "header") {
                        label {
                            code { (text(&parameter["name"])) }
                            input name=(text(&parameter["name"])) data-in=(text(&parameter["in"]))
                                required[parameter["required"] == true];
                            span { (prose(&parameter["description"])) }
                        }
                    }
                    // The script enables it.
                    button disabled { "Try" }
                    pre hidden tabindex="0" {}
                }
            }
            table {
                @for (status, response) in fields(&what["responses"]) {
                    tr {
                        td.status { (status) }
                        td { (prose(&response["description"])) }
                        td {
                            @for (kind, content) in fields(&response["content"]) {
                                div { code { (kind) } " " (kind_of(&content["schema"])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shape(name: &str, schema: &Value) -> Markup {
    html! {
        section.card id=(name) {
            h2 { code { (name) } }
            p.what { (prose(&schema["description"])) }
            table {
                @for (property, schema) in fields(&schema["properties"]) {
                    tr { td { code { (property) } } td { (kind_of(schema)) } td { (prose(&schema["description"])) } }
                }
            }
        }
    }
}

/// What a schema is, in a word or a link.
fn kind_of(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return html! { a href=(format!("#{name}")) { (name) } };
    }
    if let Some(several) = schema["oneOf"].as_array().or(schema["allOf"].as_array()) {
        return html! { @for (n, one) in several.iter().enumerate() { @if n > 0 { " or " } (kind_of(one)) } };
    }
    match &schema["type"] {
        Value::String(kind) if kind == "array" => html! { "list of " (kind_of(&schema["items"])) },
        Value::String(kind) => html! { (kind) },
        Value::Array(kinds) => html! { (kinds.iter().map(text).collect::<Vec<_>>().join(" or ")) },
        _ => html! {},
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A text of the document; nothing if it is none.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The same, with what stands between backticks as code.
fn prose(value: &Value) -> Markup {
    html! {
        @for (n, part) in text(value).split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_stays_text() {
        let evil = "<script>x</script>\"'&";
        let document = json!({
            "info": {"title": evil, "description": evil},
            "paths": {evil: {"get": {"summary": evil, "parameters": [{"name": evil, "in": "query", "description": evil}],
                "responses": {"200": {"description": evil, "content": {evil: {"schema": {"$ref": evil}}}}}}}},
            "components": {"schemas": {evil: {"properties": {evil: {"type": [evil]}}}}}
        });
        let html = page(&document).into_string();
        assert!(!html.contains("<script>x") && !html.contains("\"'&"), "{html}");
        assert_eq!(html.matches("<script").count(), 1);
    }

    #[test]
    fn code_in_prose() {
        let check = |text: &str, want: &str| assert_eq!(prose(&text.into()).into_string(), want);
        check("`len` is bytes", "<code>len</code> is bytes");
        check("a `<b>` c", "a <code>&lt;b&gt;</code> c");
        check("", "");
    }
}
