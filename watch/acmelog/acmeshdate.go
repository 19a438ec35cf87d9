package acmelog

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// maxStamp is how long a date may be that date(1) prints in any language.
const maxStamp = 96

// monthNames are the months as date(1) prints them, short and long, in the
// languages of glibc that do not print numbers.
var monthNames = [12]string{
	" jan january januar januari jän jänner janv janvier ene enero gen gennaio gener janeiro ian ianuarie jaan jaanuar janvāris janúar január led ledna sty stycznia saus sausio oca ocak tammi tammikuu ιαν ιανουαρίου січ січня янв января яну януари јан јануар ינו ינואר ม.ค มกราคม ",
	" feb february februar februari febr febrer févr fév février febrero febbraio fev fevereiro februarie veebr veebruar februāris febrúar február úno února lut lutego vas vasario şub şubat helmi helmikuu φεβ φεβρουαρίου лют лютого фев февраля февруари феб фебруар פבר פברואר ก.พ กุมภาพันธ์ ",
	" mar march mär märz mars marzo març março martie märts marts marec marca márc március mrt maart bře března kov kovo mart maret maalis maaliskuu μαρ μαρτίου бер березня мар марта март מרץ มี.ค มีนาคม ",
	" apr april avr avril abr abril aprile aprilie aprill aprīlis apríl apríla ápr április dub dubna kwi kwietnia bal balandžio nis nisan huhti huhtikuu απρ απριλίου кві квітня апр апреля април אפר אפריל เม.ย เมษายน ",
	" may mai maj mayo mag maggio maig maio maijs maí máj mája május mei kvě května maja geg gegužės mayıs touko toukokuu μαΐ μαΐου тра травня май мая мај מאי พ.ค พฤษภาคม ",
	" jun june juni juin junio giu giugno juny junho iun iunie juuni jūn jūnijs júní jún júna június čen června cze czerwca birž birželio haz haziran kesä kesäkuu junij ιουν ιουνίου чер червня июн июня юни јун יונ יוני มิ.ย มิถุนายน ",
	" jul july juli juil jui juillet julio lug luglio juliol julho iul iulie juuli jūl jūlijs júlí júl júla július čec července lip lipca liep liepos tem temmuz heinä heinäkuu julij ιουλ ιουλίου лип липня июл июля юли јул יול יולי ก.ค กรกฎาคม ",
	" aug august augusti août aoû ago agosto ag agost augusts ágú ágúst augusta augusztus augustus srp srpna sie sierpnia rugp rugpjūčio ağu ağustos agu agustus elo elokuu avg avgust αυγ αυγούστου сер серпня авг августа август אוג אוגוסט ส.ค สิงหาคม ",
	" sep sept september septembre septiembre set settembre setembre setembro septembrie septembris szept szeptember zář září wrz września rugs rugsėjo eyl eylül syys syyskuu septembra σεπ σεπτεμβρίου вер вересня сен сентября септември сеп септембар ספט ספטמבר ก.ย กันยายน ",
	" oct october okt oktober octobre octubre ott ottobre out outubro octombrie oktoober oktobris október októbra říj října paź października spal spalio eki ekim loka lokakuu οκτ οκτωβρίου жов жовтня окт октября октомври октобар אוק אוקטובר ต.ค ตุลาคม ",
	" nov november novembre noviembre novembro noiembrie novembris nóv nóvember novembra lis listopadu listopada lapkr lapkričio kas kasım marras marraskuu νοε νοεμβρίου лис листопада ноя ноября ное ноември нов новембар נוב נובמבר พ.ย พฤศจิกายน ",
	" dec december dez dezember déc décembre dic diciembre dicembre des desembre dezembro decembrie dets detsember decembris desember decembra pro prosince gru grudnia gruod gruodžio ara aralık joulu joulukuu δεκ δεκεμβρίου гру грудня дек декабря декември дец децембар דצמ דצמבר ธ.ค ธันวาคม ",
}

// zoneQuarters are abbreviations that mean one offset only, in quarters of an hour.
var zoneQuarters = map[string]int{
	"UTC": 0, "GMT": 0, "Z": 0, "UCT": 0, "WET": 0, "WEST": 4, "BST": 4, "CET": 4, "CEST": 8, "MEZ": 4, "MESZ": 8, "EET": 8, "EEST": 12, "MSK": 12,
	"EST": -20, "EDT": -16, "CDT": -20, "MST": -28, "MDT": -24, "PST": -32, "PDT": -28, "AKST": -36, "AKDT": -32, "HST": -40,
	"JST": 36, "KST": 36, "HKT": 32, "AWST": 32, "AEST": 40, "AEDT": 44, "ACST": 38, "ACDT": 42, "NZST": 48, "NZDT": 52, "SAST": 8, "WIB": 28,
}

// cutStamp cuts "[DATE] " off a line.
func cutStamp(b []byte) (stamp, rest []byte, ok bool) {
	if len(b) < 12 || b[0] != '[' {
		return nil, nil, false
	}
	i := bytes.IndexByte(b[:min(len(b), maxStamp+2)], ']')
	if i < 10 || i+1 < len(b) && b[i+1] != ' ' {
		return nil, nil, false
	}
	stamp = b[1:i]
	if _, _, _, at := stampClock(stamp); at < 0 {
		return nil, nil, false
	}
	if i+2 <= len(b) {
		rest = b[i+2:]
	}
	return stamp, rest, true
}

// stampClock finds the time of day: 07:46:17, 7.46.17, 07時46分17秒. at is where it
// begins, -1: nowhere.
func stampClock(b []byte) (hour, minute, second, at int) {
	for i := 0; i < len(b); i++ {
		if b[i] < '0' || b[i] > '9' || i > 0 && b[i-1] >= '0' && b[i-1] <= '9' {
			continue
		}
		h, j := stampNumber(b, i)
		if j-i > 2 || h > 23 {
			continue
		}
		j = stampSeparator(b, j)
		m, k := stampNumber(b, j)
		if j < 0 || k-j != 2 || m > 59 {
			continue
		}
		k = stampSeparator(b, k)
		s, n := stampNumber(b, k)
		if k < 0 || n-k != 2 || s > 60 {
			continue
		}
		return h, m, s, i
	}
	return 0, 0, 0, -1
}

// stampNumber reads a number; end is behind it.
func stampNumber(b []byte, i int) (n, end int) {
	if i < 0 {
		return 0, -1
	}
	for end = i; end < len(b) && b[end] >= '0' && b[end] <= '9' && end-i < 5; end++ {
		n = n*10 + int(b[end]-'0')
	}
	return n, end
}

// stampSeparator skips what stands between hours, minutes and seconds, -1: it does not.
func stampSeparator(b []byte, i int) int {
	if i < 0 || i >= len(b) {
		return -1
	}
	if b[i] == ':' || b[i] == '.' {
		return i + 1
	}
	for _, s := range []string{"時", "时", "分"} {
		if bytes.HasPrefix(b[i:], []byte(s)) {
			return i + len(s)
		}
	}
	return -1
}

// parseStamp reads a date as date(1) prints it by default, in whatever language;
// zero: it cannot be read. zone is that of dates whose own zone is not known.
func parseStamp(b []byte, zone *time.Location) time.Time {
	if len(b) > maxStamp {
		return time.Time{}
	}
	b = bytes.ReplaceAll(b, []byte("\u00a0"), []byte{' '})
	hour, minute, second, clock := stampClock(b)
	if clock < 0 {
		return time.Time{}
	}
	var year, month, day int
	var numbers [4]int
	n := 0
	offset, fixed, pm, am := 0, false, false, false
	abbreviation := ""
	text := string(b)
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case i == clock:
			for i < len(text) && (text[i] >= '0' && text[i] <= '9' || stampSeparator(b, i) > 0) {
				if text[i] >= '0' && text[i] <= '9' {
					i++
				} else {
					i = stampSeparator(b, i)
				}
			}
			i += len(text[i:]) - len(strings.TrimPrefix(text[i:], "秒"))
		case (c == '+' || c == '-') && i > 0 && stampOffset(text[i+1:]):
			v, end := stampNumber(b, i+1)
			if end-i == 3 {
				v *= 100
			}
			offset, fixed = (v/100*60+v%100)*60, true
			if c == '-' {
				offset = -offset
			}
			i = end
		case c >= '0' && c <= '9':
			v, end := stampNumber(b, i)
			switch r, size := utf8.DecodeRuneInString(text[end:]); {
			case r == '年':
				year, end = v, end+size
			case r == '月' || r == '월':
				month, end = v, end+size
			case r == '日' || r == '일':
				day, end = v, end+size
			case end-i == 4:
				year = v
				if n < len(numbers) {
					numbers[n] = v
					n++
				}
			case n < len(numbers):
				numbers[n] = v
				n++
			}
			i = end
		case stampLetter(c):
			j := i
			for j < len(text) && (stampLetter(text[j]) || text[j] == '.' && j+1 < len(text) && stampLetter(text[j+1])) {
				j++
			}
			word := text[i:j]
			i = j
			if word == "" { // cannot be
				i++
				continue
			}
			switch strings.ToLower(word) {
			case "am", "a.m", "πμ", "上午", "오전":
				am = true
				continue
			case "pm", "p.m", "μμ", "下午", "오후", "अपराह्न":
				pm = true
				continue
			}
			if m := monthOf(strings.ToLower(word)); m > 0 {
				month = m // the last one: "mar" is a day of the week before it
			} else if word == strings.ToUpper(word) && len(word) <= 5 && word[0] < utf8.RuneSelf {
				abbreviation = word
			}
		default:
			i++
		}
	}
	day, month, year = placeNumbers(numbers[:n], day, month, year)
	if year > 2400 { // the Buddhist era
		year -= 543
	}
	switch {
	case pm && hour < 12:
		hour += 12
	case am && hour == 12:
		hour = 0
	}
	if year < 2000 || year > 2200 || month < 1 || month > 12 || day < 1 || day > 31 {
		return time.Time{}
	}
	at := time.Date(year, time.Month(month), day, hour, minute, second, 0, zone)
	if !fixed && abbreviation != "" {
		if name, _ := at.Zone(); name != abbreviation {
			if other := at.Add(time.Hour); zoneName(other) == abbreviation { // the second time that the clock shows this
				return other
			}
			if q, ok := zoneQuarters[abbreviation]; ok {
				offset, fixed = q*15*60, true
			}
		}
	}
	if fixed {
		at = time.Date(year, time.Month(month), day, hour, minute, second, 0, time.FixedZone("", offset))
	}
	return at.UTC()
}

func zoneName(t time.Time) string {
	name, _ := t.Zone()
	return name
}

// stampOffset reports whether s begins with 02 or 0200 and goes on with no digit.
func stampOffset(s string) bool {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n == 2 || n == 4
}

// stampLetter reports whether c belongs to a word; every byte above ASCII does.
func stampLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// monthOf finds the month of a word in lower case, 0: none.
func monthOf(word string) int {
	if len(word) > 32 {
		return 0
	}
	word = strings.TrimPrefix(word, "d’")
	for i, names := range monthNames {
		if strings.Contains(names, " "+word+" ") {
			return i + 1
		}
	}
	return 0
}

// placeNumbers gives the numbers that no word belongs to their places: 22.11.2026,
// 2026. 11. 22., or a day beside the name of a month.
func placeNumbers(n []int, day, month, year int) (int, int, int) {
	if month == 0 && len(n) >= 3 {
		if n[0] > 999 {
			return n[2], n[1], n[0]
		}
		if n[2] > 999 {
			return n[0], n[1], n[2]
		}
	}
	for _, v := range n {
		switch {
		case v > 999:
		case day == 0:
			day = v
		case month == 0: // "22 Tháng 11 năm 2026"
			month = v
		}
	}
	return day, month, year
}
