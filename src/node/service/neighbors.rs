//! The edges of a node, page by page.
//!
//! Edges that leave a node live in its partition; those that enter it live with their sources, anywhere.
//! They are read in this order: the leaving ones, then the entering ones of one partition after the other,
//! each in the order of its rows. A [`Place`] says how far a reader got, and a page reads on from there: a
//! node with a million edges costs each page no more than the page. Every page is as fresh as the caller
//! wants by itself; what changes between two pages may or may not be seen.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    errors,
    local::LocalEdge,
    reads::{Reads, Terms},
    remote::{self, blocking},
};
use crate::{
    api::{Consistency, Direction, EntityKind, Neighbor},
    error::{ClusterError, ErrorCode},
    graph::{
        Cid,
        read::{self, EDGE_BYTES},
    },
    limits::{ANSWER_BYTES_MAX, ANSWER_NEIGHBORS_MAX, NEIGHBORS_MAX},
    placement::PartitionId,
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) node: Cid,
    pub(crate) direction: Direction,
    pub(crate) label: Option<&'a str>,
}

/// Where in a node's edges a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    side: Side,
    partition: PartitionId,
    /// The last row that was read there; empty before the first.
    after: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Leaving,
    Entering,
}

/// Some of a node's edges.
#[derive(Clone, Debug)]
pub(crate) struct NeighborPage {
    pub(crate) neighbors: Vec<Neighbor>,
    /// Where the next page begins; `None`: there is none. A page that is not the last may be short, or
    /// empty.
    pub(crate) resume: Option<Place>,
}

impl Place {
    fn start(side: Side, partition: PartitionId) -> Self {
        Self { side, partition, after: Bytes::new() }
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.side, self.partition) == (other.side, other.partition)
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Opaque bytes for the wire.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let side = match self.side {
            Side::Leaving => 0,
            Side::Entering => 1,
        };
        [&[side], self.partition.0.to_le_bytes().as_slice(), &self.after].concat().into()
    }

    /// The place that bytes from the wire name; none where there are none.
    ///
    /// # Errors
    /// Where no answer can have said this.
    pub(crate) fn from_bytes(bytes: &Bytes) -> Result<Option<Self>, ClusterError> {
        let Some((&side, rest)) = bytes.split_first() else { return Ok(None) };
        let side = match side {
            0 => Some(Side::Leaving),
            1 => Some(Side::Entering),
            _ => None,
        };
        match (side, rest.split_first_chunk()) {
            (Some(side), Some((partition, after))) => {
                let partition = PartitionId(u32::from_le_bytes(*partition));
                Ok(Some(Self { side, partition, after: bytes.slice_ref(after) }))
            }
            (Some(_), None) | (None, _) => Err(errors::malformed("the request's resume is no position")),
        }
    }
}

impl Side {
    fn direction(self) -> Direction {
        match self {
            Self::Leaving => Direction::Out,
            Self::Entering => Direction::In,
        }
    }

    fn neighbor(self, edge: LocalEdge) -> Neighbor {
        let (incoming, node) = match self {
            Self::Leaving => (false, edge.ends.target),
            Self::Entering => (true, edge.ends.source),
        };
        Neighbor { edge: edge.cid, label: edge.label, incoming, node }
    }
}

impl Reads {
    /// All neighbours, sorted.
    ///
    /// # Errors
    /// Where there is no such node, it has too many neighbours for one answer, or somebody who has to be
    /// asked does not answer.
    pub(crate) async fn neighbors(
        &self,
        question: Question<'_>,
        terms: Terms,
    ) -> Result<Vec<Neighbor>, ClusterError> {
        let (mut neighbors, mut from) = (Vec::new(), None);
        loop {
            let page = self.neighbors_page(question, from, ANSWER_NEIGHBORS_MAX, terms).await?;
            neighbors.extend(page.neighbors);
            if neighbors.len() > NEIGHBORS_MAX {
                let what = format!("node {} has more than {NEIGHBORS_MAX} neighbours", question.node);
                return Err(ClusterError::new(ErrorCode::TooLarge, what));
            }
            from = page.resume;
            if from.is_none() {
                neighbors.sort_unstable();
                return Ok(neighbors);
            }
        }
    }

    /// The first neighbours, and whether there are more.
    pub(super) async fn first_neighbors(
        &self,
        question: Question<'_>,
        limit: usize,
        terms: Terms,
    ) -> Result<(Vec<Neighbor>, bool), ClusterError> {
        let (mut neighbors, mut from) = (Vec::new(), None);
        loop {
            let page = self.neighbors_page(question, from, limit - neighbors.len(), terms).await?;
            neighbors.extend(page.neighbors);
            from = page.resume;
            if from.is_none() || neighbors.len() >= limit {
                return Ok((neighbors, from.is_some()));
            }
        }
    }

    /// At most `limit` neighbours, at least 1, from a place on.
    ///
    /// # Errors
    /// Where there is no such node, or somebody who has to be asked does not answer.
    pub(crate) async fn neighbors_page(
        &self,
        question: Question<'_>,
        from: Option<Place>,
        limit: usize,
        terms: Terms,
    ) -> Result<NeighborPage, ClusterError> {
        let home = self.home(&question.node);
        // A session's index is of the partition that is named, else of the node's.
        let indexed = terms.partition.unwrap_or(home);
        let terms_in = |partition| if partition == indexed { terms } else { terms.elsewhere() };
        if !terms.forwarded {
            self.check_is_node(question.node, Terms { partition: Some(home), ..terms_in(home) }).await?;
        }
        let mut places = self.places(question.direction, home, from, terms)?.into_iter();
        let mut page = NeighborPage { neighbors: Vec::new(), resume: None };
        let (mut bytes, mut entering_is_fresh) = (0, false);
        while let Some(place) = places.next() {
            if place.side == Side::Entering && !entering_is_fresh {
                entering_is_fresh = true;
                let partitions = std::iter::once(&place).chain(places.as_slice());
                self.freshen_those_here(partitions.map(|place| place.partition), terms).await?;
            }
            let room = Room { neighbors: limit - page.neighbors.len(), bytes: ANSWER_BYTES_MAX - bytes };
            let found = self.neighbors_at(question, &place, room, terms_in(place.partition)).await?;
            bytes =
                found.neighbors.iter().map(weight).fold(bytes, usize::saturating_add).min(ANSWER_BYTES_MAX);
            page.neighbors.extend(found.neighbors);
            page.resume = found.resume;
            if page.resume.is_none() && (page.neighbors.len() >= limit || bytes == ANSWER_BYTES_MAX) {
                page.resume = places.next();
                return Ok(page);
            }
            if page.resume.is_some() {
                return Ok(page);
            }
        }
        Ok(page)
    }

    async fn check_is_node(&self, cid: Cid, terms: Terms) -> Result<(), ClusterError> {
        let found = self.entity(cid, terms).await?;
        let (code, what) = match found.map(|found| found.value.kind) {
            Some(EntityKind::Node { .. }) => return Ok(()),
            Some(EntityKind::Edge { .. }) => (ErrorCode::WrongKind, format!("{cid} is no node but an edge")),
            None => (ErrorCode::NotFound, format!("there is no node {cid}")),
        };
        Err(ClusterError::new(code, what))
    }

    /// What there is to read, in order, from a place on.
    fn places(
        &self,
        direction: Direction,
        home: PartitionId,
        from: Option<Place>,
        terms: Terms,
    ) -> Result<Vec<Place>, ClusterError> {
        let only = terms.partition.filter(|_| terms.forwarded);
        let mut places = Vec::new();
        if direction != Direction::In && only.is_none_or(|only| only == home) {
            places.push(Place::start(Side::Leaving, home));
        }
        if direction != Direction::Out {
            let all = self.partitions().filter(|partition| only.is_none_or(|only| only == *partition));
            places.extend(all.map(|partition| Place::start(Side::Entering, partition)));
        }
        let Some(from) = from else { return Ok(places) };
        let Some(at) = places.iter().position(|place| place.is_of(&from)) else {
            return Err(errors::malformed("the request's resume is a position of another request"));
        };
        places.drain(..at);
        places[0] = from;
        Ok(places)
    }

    /// The neighbours of one side in one partition, from a place on.
    async fn neighbors_at(
        &self,
        question: Question<'_>,
        place: &Place,
        room: Room,
        terms: Terms,
    ) -> Result<NeighborPage, ClusterError> {
        let partition = place.partition;
        if !self.answers_here(partition, terms)? {
            let question = Question { direction: place.side.direction(), ..question };
            return remote::neighbors(self, question, place, room.neighbors, terms).await;
        }
        if place.side == Side::Leaving || matches!(terms.consistency, Consistency::Session(_)) {
            self.freshen(partition, terms).await?;
        }
        let page = read::Page {
            after: (!place.after.is_empty()).then(|| place.after.to_vec()),
            bytes: room.bytes.max(1),
            ..read::Page::first(room.neighbors)
        };
        let (reads, side, node) = (Arc::clone(&self.coordinator.reads), place.side, question.node);
        let label = question.label.map(str::to_owned);
        let found = blocking(move || match side {
            Side::Leaving => reads.out_edges(partition, &node, label.as_deref(), &page),
            Side::Entering => reads.in_edges(partition, &node, label.as_deref(), &page),
        })
        .await?;
        let edges = self.visible_edges(found.items, terms).await?;
        Ok(NeighborPage {
            neighbors: edges.into_iter().map(|edge| side.neighbor(edge)).collect(),
            resume: found.resume.map(|after| Place { after: after.into(), ..place.clone() }),
        })
    }
}

/// What still fits into a page.
#[derive(Clone, Copy, Debug)]
struct Room {
    neighbors: usize,
    bytes: usize,
}

/// About how many bytes a neighbour has in a message: two CIDs, and what is around them.
fn weight(neighbor: &Neighbor) -> usize {
    neighbor.label.len() + EDGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_as_it_went_out() {
        let after = Bytes::from_static(b"a row");
        for side in [Side::Leaving, Side::Entering] {
            let place = Place { side, partition: PartitionId(258), after: after.clone() };
            assert_eq!(Place::from_bytes(&place.to_bytes()).unwrap(), Some(place));
        }
        assert_eq!(Place::from_bytes(&Bytes::new()).unwrap(), None);
        for nonsense in [&b"\x02\0\0\0\0"[..], b"\0\0\0\0", b"\x01"] {
            let refused = Place::from_bytes(&Bytes::copy_from_slice(nonsense)).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::MalformedValue);
        }
    }
}
