"""Whole jobs, one step after another; the only room that knows findings and report as well as audits.

finish.py     what an audit ends with
audit.py      an audit in this process, without Beam: `augnet.audit`
opened.py     a finished audit to ask and to look at: `augnet.open_audit`
progress.py   the line that shows how far it is
"""
