"""DP-GEN's vocabulary: keys and engines that are known and not run here."""

from __future__ import annotations

OTHER_ENGINES = frozenset(
    [
        "fp_raw_data",
        "low_level",
        "cutoff",
        "parm7",
        "parm7_prefix",
        "mdin",
        "mdin_prefix",
        "qm_region",
        "qm_charge",
        "nsteps",
        "r",
        "disang",
        "disang_prefix",
        "gromacs_settings",
        "sys_charges",
        "calypso_input_path",
        "model_devi_max_iter",
        "vsc",
    ]
)
"""Top-level keys of param.json of engines we do not run."""

JOB_OTHER_ENGINES = frozenset(
    [
        "restart_from_iter",
        "lambdas",
        "times",
    ]
)
"""Keys of one exploration job of engines we do not run."""

SECTION_LATER = frozenset({"source_list"})
"""Keys of a section of machine.json that DP-GEN reads and we do not."""

REFUSED_ENGINES = {
    "fp_style": ("siesta", "pwmat", "cpx", "amber/diff"),
    "model_devi_engine": ("gromacs", "amber", "calypso"),
}
