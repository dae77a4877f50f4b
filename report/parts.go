package report

// Part is a run of its own within a failback. Its report tells the rest.
type Part struct {
	Run      string `json:"run"`
	Outcome  string `json:"outcome"`
	Sentence string `json:"sentence"`
	Report   string `json:"report,omitempty"` // path of its JSON on the worker
}

// runs lists the runs that a failback is made of.
func (r Report) runs(w *writer) {
	if len(r.Parts) == 0 {
		return
	}
	w.table("The runs that it is made of", "Run|Outcome|What it says|Report")
	for _, p := range r.Parts {
		w.row(esc(p.Run), esc(p.Outcome), esc(p.Sentence), esc(p.Report))
	}
}
