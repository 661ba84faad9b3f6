from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from vitrail.data import View


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(0, 200)] * 2),
    st.tuples(*[st.floats(2, 300)] * 2),
    st.floats(-180, 180),
    st.floats(0.3, 3),
)
def test_views_invert(corner: tuple[float, float], size: tuple[float, float], turn: float, zoom: float) -> None:
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    view = View.of(box, (48, 64), zoom=zoom, turn=turn)
    points = torch.tensor([[box[0], box[1]], [box[2], box[3]], [0.0, 0.0]])
    torch.testing.assert_close(view.to_image(view.to_frame(points)), points, atol=0.02, rtol=1e-3)
