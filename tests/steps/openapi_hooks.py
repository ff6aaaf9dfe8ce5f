"""What schemathesis cannot read in the description of the API."""

import datetime
import json

import schemathesis
from hypothesis import strategies as st

# JSON Schema knows no "up to today", and the service refuses a processed date in the future.
schemathesis.openapi.format(
    "date",
    st.dates(max_value=datetime.datetime.now(datetime.timezone.utc).date()).map(str),
)


@schemathesis.deserializer("application/json")
def json_perhaps_marked(_, response):
    """Partner Center's own bytes may begin with a byte-order mark, which readers may pass over
    (RFC 8259, section 8.1); Python's does not."""
    return json.loads(response.content.decode("utf-8-sig"))
