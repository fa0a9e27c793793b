"""The ground that every other interop test stands on: one version of libtorch on both sides."""

import json
import re

import torch


def test_python_and_hrm_use_the_same_libtorch(hrm):
    ours = re.search(r"libtorch (\d+\.\d+\.\d+)", hrm("--version"))
    assert ours, "hrm --version names libtorch"
    assert ours.group(1) == torch.__version__.split("+")[0]


def test_doctor_names_the_libtorch_that_it_loaded(hrm):
    report = json.loads(hrm("doctor", "--json", "-"))
    assert report["libtorch"]["loaded"].split("+")[0] == torch.__version__.split("+")[0]
    assert report["libtorch"]["compiled"] == torch.__version__.split("+")[0]
