"""TIMIT's phones and speakers as published lists (torch-free)."""

from __future__ import annotations

_FOLDED = {  # 39 phones of Lee and Hon (1989) -> what falls into them, in their 48 where that has another name
    "aa": "aa ao",
    "ae": "ae",
    "ah": "ah ax ax-h>ax",
    "aw": "aw",
    "ay": "ay",
    "b": "b",
    "ch": "ch",
    "d": "d",
    "dh": "dh",
    "dx": "dx",
    "eh": "eh",
    "er": "er axr>er",
    "ey": "ey",
    "f": "f",
    "g": "g",
    "hh": "hh hv>hh",
    "ih": "ih ix",
    "iy": "iy",
    "jh": "jh",
    "k": "k",
    "l": "l el",
    "m": "m em>m",
    "n": "n en nx>n",
    "ng": "ng eng>ng",
    "ow": "ow",
    "oy": "oy",
    "p": "p",
    "r": "r",
    "s": "s",
    "sh": "sh zh",
    "sil": "bcl>vcl dcl>vcl gcl>vcl pcl>cl tcl>cl kcl>cl epi h#>sil pau>sil",
    "t": "t",
    "th": "th",
    "uh": "uh",
    "uw": "uw ux>uw",
    "v": "v",
    "w": "w",
    "y": "y",
    "z": "z",
}

TO_39: dict[str, str] = {}
"""One of the 61 phones of the transcripts -> one of 39; `q`, the glottal stop, is in neither smaller set."""
TO_48: dict[str, str] = {}
"""One of the 61 phones -> one of 48."""

for _phone, _members in _FOLDED.items():
    for _member in _members.split():
        _from, _, _to = _member.partition(">")
        TO_39[_from], TO_48[_from] = _phone, _to or _from

PHONES = frozenset({*TO_39, "q"})

_CORE = (
    "mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 "
    "mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0"
)
CORE_TEST = frozenset(_CORE.split())
"""The 24 speakers of the core test: two men and a woman of each dialect region."""

_DEVELOPMENT = (
    "faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 "
    "mglb0 mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 "
    "mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1"
)
DEVELOPMENT = frozenset(_DEVELOPMENT.split())
"""50 other speakers of the test half, the development set of Kaldi's recipe and of many papers."""
