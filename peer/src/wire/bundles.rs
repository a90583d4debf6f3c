//! The route that gives several small contents in one answer, in the form of [`super::bundle`].
//!
//! For a file of a few kilobytes a request costs both sides far more than its bytes; so thousands of files go in
//! bundles. A content is given only if the file is in the very state in which it was hashed, before and after it is read.

use std::io;
use std::os::unix::fs::FileExt;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use potluck_common::chunk::MIN_CHUNK_LEN;
use potluck_common::net::problem::internal;
use potluck_common::openapi::{AnyProblem, BadQuery};
use potluck_common::{ContentId, SharePath};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{Slot, in_pieces};
use super::bundle::{MAX_BUNDLE_LEN, bundle_len, parse_ids, push_part};
use super::respond::bad_query;
use super::serve::Serve;
use crate::share::folder::{FileIdentity, ShareFolder};
use crate::share::library::{Library, SharedFile};
use crate::share::sharing::LookAgain;

/// The route.
pub(super) fn router() -> OpenApiRouter<Serve> {
    OpenApiRouter::new().routes(routes!(contents))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ContentsQuery {
    /// Content ids, 64 at most, with commas between them.
    ids: String,
}

/// Several contents of one chunk each, 512 KiB in all at most.
///
/// Each is 32 bytes with its id, 4 bytes with its length (big-endian) and its bytes. Contents that are not held, are longer than
/// 256 KiB or have no room are left out.
#[utoipa::path(get, path = "/v1/contents", params(ContentsQuery),
    responses((status = 200, description = "Those that are here.", body = Vec<u8>, content_type = "application/octet-stream"),
        BadQuery, AnyProblem))]
async fn contents(
    State(serve): State<Serve>,
    method: Method,
    query: Result<Query<ContentsQuery>, QueryRejection>,
) -> Result<Response, Response> {
    let Query(query) = query.map_err(|error| bad_query(error.body_text()).into_response())?;
    let ids =
        parse_ids(&query.ids).map_err(|error| bad_query(format!("It takes ids=ID,ID,…: {error}.")).into_response())?;
    let found = Found::of(&ids, &serve.library);
    let head = |len: usize| {
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, len.to_string())]
    };
    if method == Method::HEAD {
        return Ok(head(found.len()).into_response());
    }
    let permit = serve.permit().await.ok_or_else(|| serve.choked())?;
    let (folder, look_again) = (serve.folder.clone(), serve.look_again.clone());
    // The slot goes along: whoever hangs up at once would otherwise have it again while the disk still reads.
    let read = tokio::task::spawn_blocking(move || (found.read(&folder, &look_again), permit)).await;
    let (bundle, permit) = read.map_err(|error| {
        tracing::error!(%error, "making a bundle failed");
        internal().into_response()
    })?;
    let head = head(bundle.len());
    let pieces = in_pieces(bundle.into(), serve.limit, serve.traffic, Slot { permit, seat: None });
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// What is here of the contents that were asked for: for each the places where it can be read.
struct Found {
    contents: Vec<Vec<(SharePath, SharedFile)>>,
    n_bytes: u64,
}

impl Found {
    fn of(ids: &[ContentId], library: &Library) -> Self {
        let mut found = Self { contents: Vec::new(), n_bytes: 0 };
        for id in ids {
            let places = library.find(*id);
            let Some((_, file)) = places.first() else { continue };
            let len = file.identity.len;
            if len <= MIN_CHUNK_LEN && found.n_bytes + len <= MAX_BUNDLE_LEN {
                found.n_bytes += len;
                found.contents.push(places);
            }
        }
        found
    }

    /// Bytes of the bundle, if all can be read.
    fn len(&self) -> usize {
        bundle_len(self.contents.len(), self.n_bytes)
    }

    fn read(self, folder: &ShareFolder, look_again: &LookAgain) -> Vec<u8> {
        let mut bundle = Vec::with_capacity(self.len());
        for places in self.contents {
            for (path, file) in places {
                match add(&mut bundle, folder, &path, file) {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::debug!(path = path.as_str(), %error, "a shared file is not what it was");
                        look_again.on_unread(path, file.identity, &error);
                    }
                }
            }
        }
        bundle
    }
}

fn add(bundle: &mut Vec<u8>, folder: &ShareFolder, path: &SharePath, file: SharedFile) -> io::Result<()> {
    let open = folder.open_unchanged(path, file.identity)?;
    let len = u32::try_from(file.identity.len).map_err(io::Error::other)?;
    push_part(bundle, file.content_id, len, |bytes| {
        open.read_exact_at(bytes, 0)?;
        match FileIdentity::of(&open)? == file.identity {
            true => Ok(()),
            false => Err(io::Error::other("the file changed while it was read")),
        }
    })
}
