// Package nearest finds what somebody meant who made a slip of the pen: "memory"
// for "memoy".
package nearest

// maxWord is the longest word that is looked at: the time is its square.
const maxWord = 64

// Word returns the word of known that differs least from word, or "" if none is
// near enough: up to a third of the letters may be wrong, missing, too many, or
// change places with their neighbours. Of several the first counts; word itself
// is none, but one that differs in case only is.
func Word(word string, known []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	best, least := "", maxWord
	for _, k := range known {
		if k == word || len(k) > maxWord {
			continue
		}
		d := distance(word, k)
		if d < least && d <= (max(len(word), len(k))+1)/3 {
			best, least = k, d
		}
	}
	return best
}

// fold makes the capitals of ASCII small. Unlike strings.ToLower it leaves the
// length alone, whatever the bytes are.
func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// distance is how many letters, of either case, must be put in, taken out, changed or swapped
// with the next to make b of a, none of them twice (optimal string alignment).
func distance(a, b string) int {
	// rows[i%3][j] is the distance of a[:i] and b[:j].
	var rows [3][maxWord + 1]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, above := &rows[i%3], &rows[(i-1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if fold(a[i-1]) == fold(b[j-1]) {
				change = 0
			}
			row[j] = min(row[j-1]+1, above[j]+1, above[j-1]+change)
			if i > 1 && j > 1 && fold(a[i-1]) == fold(b[j-2]) && fold(a[i-2]) == fold(b[j-1]) {
				row[j] = min(row[j], rows[(i-2)%3][j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
