package plot

import (
	"html/template"
	"io"
	"strings"
)

// page is self-contained: it fetches nothing and runs nothing, and says so.
var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{{.Title}}</title>
<style>
body { max-width: 960px; margin: 1em auto; padding: 0 1em; background: #fff; color: #1f2328 }
div { overflow-x: auto }
svg { max-width: 100%; min-width: 680px; height: auto }
pre { white-space: pre-wrap; font-size: 11px; line-height: 1.5; margin: 1em 28px }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3 } }
</style>
<div>{{.Picture}}</div>
<pre>{{.Text}}</pre>
</html>
`))

// HTML writes a page with the picture and, under it, a text.
func (r *Record) HTML(w io.Writer, text string) error {
	var svg strings.Builder
	if err := r.SVG(&svg); err != nil {
		return err
	}
	return page.Execute(w, struct {
		Title, Text string
		Picture     template.HTML // of our own making, with what came from outside escaped
	}{r.headline(longName), text, template.HTML(svg.String())})
}
