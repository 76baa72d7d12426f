r"""Announcements in other languages: Antwort: 12  La réponse est 12  答案是12

Pieces of the pattern of announced.py, verbose. The words for and, or, not and minus are spelling.py's.
"""

from maft.answers.spelling import BUT, NOT

_IS = r"""(?:ist|lautet|est|es|é|è|is|jest|to|brzmi|je|är|er|on|adalah|là|este|є|είναι|равен|равно|هو|هي|היא)(?![^\W_])"""
_IS_CJK = r"(?:应该|應該)?[是为為] | 就是 | 等于 | 等於 | は、? | 은 | 는"
_ANSWER = r"""(?: (?<![^\W_])(?:Antwort|Lösung|réponse|respuesta|resposta|risposta|ответ|antwoord|odpowiedź|odpověď|svar(?:et)?
          |vastaus|cevap|yanıt|jawaban(?:nya)?|đáp\ án|câu\ trả\ lời|răspuns(?:ul)?|відповідь|απάντηση)(?![^\W_])
        (?:\s(?:finale?|correcta?|correcte|corretta|exacte|definitiva|akhir|cuối\ cùng|đúng)(?![^\W_]))?
      | الجواب | الإجابة | תשובה | उत्तर | คำตอบ | 答案 | 答え | 正解 | 정답 | (?<![^\W_])답(?=[은:]) )"""
# A result may be one on the way: only where nothing follows its sentence.
_RESULT = r"""(?: (?<![^\W_])(?:Ergebnis|Resultat|résultat|resultado|risultato|resultaat|результат|wynik|výsledek|hasil(?:nya)?
          |kết\ quả)(?![^\W_])
      | 结果 | 結果 | 결과(?=[는:]) )"""
_LAST = r"(?=[^\n.!?]{0,120}+(?:\.\d[^\n.!?]{0,60}+)?[.!?]?\s*\Z)"
_COLON_OR_IS = rf"[\s*_]*+ (?: : | {_IS}(?>(?:\s*+:)?) | คือ | {_IS_CJK} )"
ANNOUNCED = rf"(?P<abroad> {_ANSWER}{_COLON_OR_IS} | {_RESULT}{_COLON_OR_IS}{_LAST} )"

NOT_THIS = (  # niet 5 maar 6, but a text may begin with such a word
    rf"(?:{NOT})(?=\s(?:[$\\(*]*(?:[-\d]|[A-J](?![^\W_]))|[^.\n]{{1,60}}?\s(?:{BUT})\s))|no(?=\s[^.\n]{{1,40}}\ssino\s)"
)
