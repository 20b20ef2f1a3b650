"""What the features of the flights domain describe."""

import polars as pl

from featurestore import Entity

origin = Entity("origin", description="An airport that flights leave from, by FAA code.")
dest = Entity("dest", description="An airport that flights go to, by FAA code.")
carrier = Entity("carrier", description="An airline, by its two-letter code.")
route = Entity(
    "route",
    keys={"origin": pl.String, "dest": pl.String},
    description="A pair of airports, in the direction of travel.",
)
plane = Entity("plane", keys={"tailnum": pl.String}, description="An aircraft, by tail number.")
