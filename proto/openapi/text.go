package main

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
)

// text is a comment as Markdown: a paragraph is one line.
func text(comments protogen.CommentSet) string {
	var paragraphs []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(string(comments.Leading)), "\n\n") {
		paragraphs = append(paragraphs, strings.Join(strings.Fields(paragraph), " "))
	}
	return strings.Join(paragraphs, "\n\n")
}

// A sentence ends before the next one, which begins with a capital or with code, or with its paragraph.
var sentenceEnd = regexp.MustCompile("\\.(?: [A-Z0-9`]|\n\n|$)")

// sentence splits a text into its first sentence, without the full stop, and the rest.
func sentence(text string) (first, rest string) {
	end := sentenceEnd.FindStringIndex(text)
	if end == nil {
		return text, ""
	}
	return text[:end[0]], strings.TrimSpace(text[end[0]+1:])
}

// join puts texts that are not empty into paragraphs of one.
func join(texts ...string) string {
	var kept []string
	for _, text := range texts {
		if text != "" {
			kept = append(kept, text)
		}
	}
	return strings.Join(kept, "\n\n")
}
