package text

import "strings"

// Nearest is the name that was probably meant by word, or "" if none is near: at most a third of the letters is wrong.
// Case, and whether - or _ stands between words, do not matter.
func Nearest(word string, names []string) string {
	best, least := "", 1+len(word)/3
	if len(word) > 64 {
		return ""
	}
	plain := strings.NewReplacer("-", " ", "_", " ")
	word = plain.Replace(strings.ToLower(word))
	for _, n := range names {
		if d := distance(word, plain.Replace(strings.ToLower(n))); d < least || d == least && n < best {
			best, least = n, d
		}
	}
	return best
}

// distance counts the bytes to insert, drop, change or swap with a neighbour to get from a to b.
func distance(a, b string) int {
	var prev2 []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
