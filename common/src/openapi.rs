//! What cannot be derived of an OpenAPI document: types that are plain text on the wire, and errors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::address::Advertise;
use crate::discovery::{SwarmName, TrackerId};
use crate::have::HaveText;
use crate::identity::PublicKey;
use crate::protocol::Parts;
use crate::{ContentId, PeerId, SharePath};

macro_rules! text {
    ($($type:ident $pattern:literal $what:literal,)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern)).description(Some($what)).into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                stringify!($type).into()
            }
        }
    )*};
}

text! {
    ContentId "^[0-9a-f]{64}$" "The BLAKE3 hash of a content's bytes, as `b3sum` prints it.",
    PeerId "^[0-9a-f]{32}$" "The first 16 bytes of the BLAKE3 hash of a peer's public key.",
    PublicKey "^[0-9a-f]{64}$" "An Ed25519 key.",
    SharePath "^[^/\\\\][^\\\\]*$" "A path in the share folder: relative, `/`-separated, UTF-8.",
    Advertise "^.+$" "`HOST[:PORT]`.",
    SwarmName "^[A-Za-z0-9._-]{1,32}$" "The name of a swarm.",
    TrackerId "^[0-9a-f]{16}$" "One run of a tracker.",
    Parts "^[0-9a-f]*$" "How much of each stretch of a content is held: a hexadecimal digit a stretch, from nothing to all of it.",
    HaveText "^[0-9a-f]*$" "A bitmap of chunks held, the first chunk in the highest bit of the first byte.",
}

/// A route that may answer 404.
#[derive(Debug)]
pub struct NotFound;

/// A route that may answer 400.
#[derive(Debug)]
pub struct BadQuery;

/// What any route may answer besides: too often (429), too busy (503), another `Host` (421), a bug (500).
#[derive(Debug)]
pub struct AnyProblem;

macro_rules! problem {
    ($($type:ident $status:literal $what:literal,)*) => {$(
        impl IntoResponses for $type {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([($status.to_owned(), problem($what).into())])
            }
        }
    )*};
}

problem! {
    NotFound "404" "There is nothing of that name or id.",
    BadQuery "400" "The query cannot be read; `detail` says why.",
    AnyProblem "default" "Too many requests (429), no room (503, with Retry-After), a host name that is not served (421), or a fault (500).",
}

fn problem(what: &str) -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(what).content("application/problem+json", content).build()
}

/// Paths as OpenAPI writes them: it knows no parameter that goes over several components.
pub fn without_wildcards(mut document: OpenApi) -> OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}
