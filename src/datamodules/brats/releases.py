"""What differs between the releases of BraTS: file names, label values, regions."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

# The order of a volume's channels, in every release: native T1, T1 with contrast agent, T2, FLAIR.
MODALITIES = ("t1", "t1ce", "t2", "flair")
TRUTH = "seg"
# The files of a case; unlabelled cases lack the last one.
ROLES = (*MODALITIES, TRUTH)

# The classes in memory, in every release.
BACKGROUND, NCR, ED, ET, RC = range(5)
CLASS_NAMES = ("background", "NCR", "ED", "ET", "RC")

# Each region is a union of classes: ET ⊂ TC ⊂ WT. The resection cavity is in none of them.
REGIONS: Mapping[str, tuple[int, ...]] = MappingProxyType({"ET": (ET,), "WT": (NCR, ED, ET), "TC": (NCR, ET)})


@dataclass(frozen=True)
class Release:
    """One year's data set. A modality's file is ``<case><separator><suffix>.nii[.gz]``, the truth's has "seg"."""

    name: str  # the year; with the suffix "-et3" if the truth has 3 where the organisers have 4
    separator: str
    suffixes: Mapping[str, str]
    example: str  # a case's name
    label_values: Mapping[int, int]  # the value in the truth's file of each class in memory
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: REGIONS)  # what is scored
    renamed: Mapping[str, str] = field(default_factory=dict)  # irregular names by the regular ones, without ending
    names: str = "(.+)"  # a regular expression of the cases' names, whose group is the patient

    def stem(self, case: str, role: str) -> str:
        """Return the name, without ending, of a case's file of one of ROLES."""
        return f"{case}{self.separator}{self.suffixes.get(role, role)}"

    def patient(self, case: str) -> str:
        """Return the patient of a case, which is the case itself if its name is not one of the release's."""
        match = re.fullmatch(self.names, case, re.IGNORECASE)
        return case if match is None else match[1]

    def with_labels(self, labels: Collection[float]) -> "Release | None":
        """Return the release, if possible of the same year, that has the same files and has all these labels."""
        fitting = [
            other
            for other in RELEASES.values()
            if (other.separator, other.suffixes) == (self.separator, self.suffixes)
            and set(labels) <= set(other.label_values.values())
        ]
        return min(fitting, key=lambda other: other.name[:4] != self.name[:4], default=None)


# The last number of a name is that of the patient's scan; names of 2020 and 2021 have one number, the patient's.
WITH_SCAN_NUMBER, WITH_TIME_POINT = r"(Brats\d\d_.+_.+)_\d+", r"(BraTS-.+-\d+)-\d+"
RENAMED_2020 = {"BraTS20_Training_355_seg": "W39_1998.09.19_Segm"}
UNDERSCORED = {name: name for name in MODALITIES}
HYPHENATED = dict(zip(MODALITIES, ("t1n", "t1c", "t2w", "t2f"), strict=True))
# Menze et al. (2015), Bakas et al. (2018): 1 necrosis and non-enhancing core, 2 edema, 4 enhancing tumour; no 3.
WITHOUT_THREE = {BACKGROUND: 0, NCR: 1, ED: 2, ET: 4}
# Since 2023 enhancing tumour is 3. In 2024, after treatment: 1 NETC, 2 SNFH, 3 ET, 4 resection cavity.
CONSECUTIVE = {BACKGROUND: 0, NCR: 1, ED: 2, ET: 3}

OFFICIAL = (
    Release("2017", "_", UNDERSCORED, "Brats17_TCIA_105_1", WITHOUT_THREE, names=WITH_SCAN_NUMBER),
    Release("2018", "_", UNDERSCORED, "Brats18_TCIA01_131_1", WITHOUT_THREE, names=WITH_SCAN_NUMBER),
    Release("2019", "_", UNDERSCORED, "BraTS19_TCIA01_131_1", WITHOUT_THREE, names=WITH_SCAN_NUMBER),
    Release("2020", "_", UNDERSCORED, "BraTS20_Training_001", WITHOUT_THREE, renamed=RENAMED_2020),
    Release("2021", "_", UNDERSCORED, "BraTS2021_00000", WITHOUT_THREE),
    Release("2023", "-", HYPHENATED, "BraTS-GLI-00000-000", CONSECUTIVE, names=WITH_TIME_POINT),
    Release(
        "2024",
        "-",
        HYPHENATED,
        "BraTS-GLI-00005-100",
        {**CONSECUTIVE, RC: 4},
        {**REGIONS, "RC": (RC,)},
        names=WITH_TIME_POINT,
    ),
)
# Preprocessed copies often have 3 for 4 in the truth.
RELABELLED = (
    replace(release, name=f"{release.name}-et3", label_values=CONSECUTIVE)
    for release in OFFICIAL
    if release.label_values == WITHOUT_THREE
)
RELEASES = {release.name: release for release in (*OFFICIAL, *RELABELLED)}


def find_release(name: str | int) -> Release:
    """Return the release of a name, such as a year; raise ValueError if there is none."""
    if str(name) not in RELEASES:
        raise ValueError(f"expected release as one of {', '.join(RELEASES)}, got {name!r}")
    return RELEASES[str(name)]
